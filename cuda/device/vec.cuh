// SPDX-License-Identifier: Apache-2.0
#pragma once

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
