// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Blocks of a cluster, which run side by side and see one another's shared memory. Before sm_90 a
// block is alone.
namespace spectx::cu::device {

inline constexpr int kMostCluster = 8;  // blocks: what every device with clusters takes

/// What the thread has read and written before, all threads of the cluster see behind
/// wait_for_cluster().
__device__ inline void arrive_at_cluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
#endif
}
/// Waits until every thread of the cluster has arrived.
__device__ inline void wait_for_cluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#else
  __syncthreads();
#endif
}

#if __CUDA_ARCH__ >= 900
/// Where block `rank` of the cluster has in its shared memory what this block has at `own`.
__device__ inline std::uint32_t remote_address(const void* own, unsigned rank) {
  const auto here = static_cast<std::uint32_t>(__cvta_generic_to_shared(own));
  std::uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
  return there;
}
#endif

/// What block `rank` of the cluster has in its shared memory where this block has `own`.
__device__ inline uint2 load_remote(const uint2* own, unsigned rank) {
#if __CUDA_ARCH__ >= 900
  uint2 value;
  asm volatile("ld.shared::cluster.v2.u32 {%0,%1}, [%2];"
               : "=r"(value.x), "=r"(value.y)
               : "r"(remote_address(own, rank))
               : "memory");
  return value;
#else
  static_cast<void>(rank);
  return *own;
#endif
}
__device__ inline float2 load_remote(const float2* own, unsigned rank) {
  const uint2 bits = load_remote(reinterpret_cast<const uint2*>(own), rank);
  return {__uint_as_float(bits.x), __uint_as_float(bits.y)};
}

/// Adds to what block `rank` of the cluster has in its shared memory where this block has `own`.
__device__ inline void add_remote(std::uint32_t* own, unsigned rank, std::uint32_t number) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.cluster.shared::cluster.add.u32 [%0], %1;" ::"r"(
                   remote_address(own, rank)),
               "r"(number)
               : "memory");
#else
  static_cast<void>(rank);
  atomicAdd(own, number);
#endif
}

}  // namespace spectx::cu::device
