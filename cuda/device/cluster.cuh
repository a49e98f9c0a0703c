// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Blocks of a cluster, which run side by side and see one another's shared memory. Before sm_90 a
// block is alone.
namespace spectx::cu::device {

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

/// What block `rank` of the cluster has in its shared memory where this block has `own`.
__device__ inline float2 load_remote(const float2* own, unsigned rank) {
#if __CUDA_ARCH__ >= 900
  const auto here = static_cast<std::uint32_t>(__cvta_generic_to_shared(own));
  std::uint32_t there;
  float2 value;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
  asm volatile("ld.shared::cluster.v2.f32 {%0,%1}, [%2];"
               : "=f"(value.x), "=f"(value.y)
               : "r"(there)
               : "memory");
  return value;
#else
  static_cast<void>(rank);
  return *own;
#endif
}

__device__ inline uint2 load_remote(const uint2* own, unsigned rank) {
#if __CUDA_ARCH__ >= 900
  const auto here = static_cast<std::uint32_t>(__cvta_generic_to_shared(own));
  std::uint32_t there;
  uint2 value;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
  asm volatile("ld.shared::cluster.v2.u32 {%0,%1}, [%2];"
               : "=r"(value.x), "=r"(value.y)
               : "r"(there)
               : "memory");
  return value;
#else
  static_cast<void>(rank);
  return *own;
#endif
}

/// Adds to what block `rank` of the cluster has in its shared memory where this block has `own`.
__device__ inline void add_remote(std::uint32_t* own, unsigned rank, std::uint32_t number) {
#if __CUDA_ARCH__ >= 900
  const auto here = static_cast<std::uint32_t>(__cvta_generic_to_shared(own));
  std::uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
  asm volatile("red.relaxed.cluster.shared::cluster.add.u32 [%0], %1;" ::"r"(there), "r"(number)
               : "memory");
#else
  static_cast<void>(rank);
  atomicAdd(own, number);
#endif
}

}  // namespace spectx::cu::device
