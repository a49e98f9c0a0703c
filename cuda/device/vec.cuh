// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "convert.cuh"

namespace spectx::cu::device {

inline constexpr int kVecBytes = 16;  // the widest load of a thread

/// Elements that are loaded and stored at once; the address must be a multiple of the size.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Vec {
  T element[kCount];

  __device__ float operator[](int i) const { return to_float(element[i]); }
};

template <class T, int kCount>
__device__ Vec<T, kCount> load_vec(const T* from) {
  return *reinterpret_cast<const Vec<T, kCount>*>(from);
}

/// 16 bytes that nobody writes while the kernel runs and that are not read again soon: the first to
/// leave the cache.
__device__ inline uint4 load_once(const uint4* from) {
  std::uint64_t first_to_leave;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(first_to_leave));
  uint4 to;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0,%1,%2,%3}, [%4], %5;"
               : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
               : "l"(from), "l"(first_to_leave));
  return to;
}

template <class T, int kCount>
__device__ void store_vec(T* to, const Vec<T, kCount>& values) {
  *reinterpret_cast<Vec<T, kCount>*>(to) = values;
}

/// All bits 0: zeros of every type.
template <class T, int kCount>
__device__ Vec<T, kCount> zero_vec() {
  Vec<T, kCount> zero;
#pragma unroll
  for (int i = 0; i < kCount; ++i) zero.element[i] = from_float<T>(0);
  return zero;
}

}  // namespace spectx::cu::device
