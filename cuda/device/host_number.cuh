// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

#include "vec.cuh"
#include "warp.cuh"

// Numbers of a host tier of a smaller type, by HostRun's rules: bit for bit what the CPU makes.
namespace spectx::cu::device {

/// As they are stored.
struct E4m3 {
  __nv_fp8_storage_t bits;
};
struct Int8 {
  signed char value;
};

/// Of a number: the one code that is none is never stored. Its bits in a float's places are a float
/// whose exponent is 120 too small; the conversion by the device's own instruction is four times as
/// slow.
__device__ inline float to_float(E4m3 x) {
  const std::uint32_t sign = (x.bits & 0x80U) << 24;
  const std::uint32_t magnitude = (x.bits & 0x7fU) << 20;
  return __uint_as_float(sign | magnitude) * 0x1p120F;
}
__device__ inline float to_float(Int8 x) { return static_cast<float>(x.value); }

/// The largest finite number of T that e4m3 does not round up past T's range.
template <class T>
inline constexpr float kMostStored = 0x1.ep127F;
template <>
inline constexpr float kMostStored<__half> = 0x1.ep15F;

/// numbers * scale, rounded to T.
template <class T, class H, int kCount>
__device__ Vec<T, kCount> elements_of(const Vec<H, kCount>& numbers, float scale) {
  Vec<T, kCount> elements;
  if constexpr (std::is_same_v<T, __nv_bfloat16> && std::is_same_v<H, E4m3> && kCount % 4 == 0) {
    // Two at a time: the same bits, for the scale is a power of two, by half the instructions.
    const auto* const four = reinterpret_cast<const std::uint32_t*>(&numbers);
    auto* const two = reinterpret_cast<__nv_bfloat162*>(&elements);
    const __nv_bfloat162 moved = __float2bfloat162_rn(0x1p120F);
    const __nv_bfloat162 scales = __float2bfloat162_rn(scale);
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      // A number in the upper byte of each half.
      const std::uint32_t pair = __byte_perm(four[i / 2], 0, i % 2 == 0 ? 0x1404 : 0x3424);
      const std::uint32_t bits = (pair & 0x80008000U) | ((pair >> 4) & 0x07f007f0U);
      two[i] = __hmul2(__hmul2(reinterpret_cast<const __nv_bfloat162&>(bits), moved), scales);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      elements.element[i] = from_float<T>(to_float(numbers.element[i]) * scale);
    }
  }
  return elements;
}

/// An element of type T times 1 / scale, rounded to nearest even.
template <class T>
__device__ void store_number(float x, float inverse, E4m3& to) {
  const float most = kMostStored<T>;
  to.bits = __nv_cvt_float_to_fp8(__fmul_rn(fminf(fmaxf(x, -most), most), inverse), __NV_SATFINITE,
                                  __NV_E4M3);
}
template <class T>
__device__ void store_number(float x, float inverse, Int8& to) {
  const int number = __float2int_rn(__fmul_rn(x, inverse));
  to.value = static_cast<signed char>(min(max(number, -127), 127));
}

__device__ inline std::uint32_t magnitude_bits(float x) { return __float_as_uint(x) & 0x7fffffffU; }

/// Scale of a part, of the bits of its largest magnitude.
__device__ inline float scale_of(std::uint32_t largest, E4m3) {
  const std::uint32_t exponent = (largest + 0x1fffffU) >> 23;
  return __uint_as_float((max(exponent, 9U) - 8) << 23);
}
__device__ inline float scale_of(std::uint32_t largest, Int8) {
  constexpr std::uint32_t kSmallest = 0x00800000;  // 2^-126
  const float scale = __fdiv_rn(__uint_as_float(largest), 127.0F);
  return __uint_as_float(max(__float_as_uint(scale) & ~0x7fU, kSmallest));
}
__device__ inline bool is_finite_bits(std::uint32_t magnitude) { return magnitude < 0x7f800000U; }
__device__ inline float quiet_nan() { return __uint_as_float(0x7fc00000U); }
__device__ inline float reciprocal(float x) { return __frcp_rn(x); }

/// Over groups of `lanes` neighbouring lanes, a power of two.
__device__ inline std::uint32_t group_max_bits(std::uint32_t x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) x = max(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}
/// x of another lane.
__device__ inline float from_lane(float x, int lane) { return __shfl_sync(kAllLanes, x, lane); }

}  // namespace spectx::cu::device
