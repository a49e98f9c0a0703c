// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace spectx::cu::device {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % kWarpSize; }
__device__ inline int warp_index() { return static_cast<int>(threadIdx.x) / kWarpSize; }
__device__ inline int warp_count() { return static_cast<int>(blockDim.x) / kWarpSize; }

/// Over groups of `lanes` neighbouring lanes, a power of two; every lane gets the result, whose
/// bits depend on the values alone.
__device__ inline float group_sum(float x, int lanes = kWarpSize) {
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
/// NaN is left out, unless all are.
__device__ inline float group_max(float x, int lanes = kWarpSize) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  }
  return x;
}
/// The sum of the lanes up to this one, of the whole warp.
template <class T>
__device__ T prefix_sum(T x) {
#pragma unroll
  for (int step = 1; step < kWarpSize; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, x, static_cast<unsigned>(step));
    if (lane_index() >= step) x += before;
  }
  return x;
}
/// The largest of the lanes up to this one, of the whole warp.
__device__ inline float prefix_max(float x) {
#pragma unroll
  for (int step = 1; step < kWarpSize; step *= 2) {
    const float before = __shfl_up_sync(kAllLanes, x, static_cast<unsigned>(step));
    if (lane_index() >= step) x = fmaxf(x, before);
  }
  return x;
}

/// Asks for `bytes` to be brought to the cache that all multiprocessors share.
__device__ inline void prefetch(const void* from, std::int64_t bytes) {
  constexpr int kLineBytes = 128;
  const auto* const at = static_cast<const char*>(from);
  for (std::int64_t i = lane_index() * kLineBytes; i < bytes; i += kWarpSize * kLineBytes) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at + i));
  }
}

/// Lanes below this one for which `holds`, and how many there are in all.
__device__ inline int rank_in_warp(bool holds, int& total) {
  const unsigned votes = __ballot_sync(kAllLanes, holds);
  total = __popc(votes);
  return __popc(votes & ((1U << lane_index()) - 1));
}

}  // namespace spectx::cu::device
