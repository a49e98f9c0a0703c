// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "warp.cuh"

namespace spectx::cu::device {

inline constexpr int kMostWarps = 32;  // of a block

/// Sum over the threads of a block, the same bits in each. `shared` [kMostWarps]; all threads call.
__device__ inline float block_sum(float x, float* shared) {
  x = group_sum(x);
  __syncthreads();
  if (lane_index() == 0) shared[warp_index()] = x;
  __syncthreads();
  return group_sum(lane_index() < warp_count() ? shared[lane_index()] : 0.0F);
}

/// Sum of the values of the threads before this one; `total`: of all. `shared` [kMostWarps]; all
/// threads call.
template <class T>
__device__ T block_exclusive_sum(T x, T* shared, T& total) {
  T inclusive = x;
#pragma unroll
  for (int step = 1; step < kWarpSize; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, inclusive, step);
    if (lane_index() >= step) inclusive += before;
  }
  __syncthreads();
  if (lane_index() == kWarpSize - 1) shared[warp_index()] = inclusive;
  __syncthreads();
  T warps = lane_index() < warp_count() ? shared[lane_index()] : T{0};
#pragma unroll
  for (int step = 1; step < kWarpSize; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, warps, step);
    if (lane_index() >= step) warps += before;
  }
  total = __shfl_sync(kAllLanes, warps, kWarpSize - 1);
  const T before_warp = __shfl_sync(kAllLanes, warps, (warp_index() + kWarpSize - 1) % kWarpSize);
  return (warp_index() == 0 ? T{0} : before_warp) + inclusive - x;
}

/// The same pointer to shared memory, kept in a register: otherwise its base is read anew at every
/// use, which takes as long as a load.
template <class T>
__device__ T* keep_address(T* shared) {
  auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("" : "+r"(address));
  return static_cast<T*>(__cvta_shared_to_generic(address));
}

/// The kernel behind this one may start once every block has called this or ended.
__device__ inline void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
/// Waits for the kernel ahead, if this one was started early. Every block calls before it reads or
/// writes anything.
__device__ inline void wait_for_kernel_ahead() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace spectx::cu::device
