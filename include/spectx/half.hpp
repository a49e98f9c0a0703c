// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

namespace spectx {

/// IEEE binary16, storage only: arithmetic is done in float.
struct half_t {
  std::uint16_t bits;
};

/// bfloat16, storage only: arithmetic is done in float.
struct bf16_t {
  std::uint16_t bits;
};

/// 8 bits with 4 of exponent and 3 of mantissa (OCP e4m3), storage only: no infinity, one NaN of
/// each sign, 448 the largest number.
struct f8_e4m3_t {
  std::uint8_t bits;
};

static_assert(sizeof(half_t) == 2 && sizeof(bf16_t) == 2 && sizeof(f8_e4m3_t) == 1);

// Branch-free, so that compilers vectorise loops over them whatever the instruction set.

constexpr float to_float(float x) noexcept { return x; }
constexpr float to_float(std::int8_t x) noexcept { return static_cast<float>(x); }

constexpr float to_float(bf16_t x) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

constexpr float to_float(half_t x) noexcept {
  constexpr float kExponentShift = 0x1p112F;  // 2^(127 - 15): rebias, subnormals included
  const std::uint32_t magnitude = x.bits & 0x7fffU;
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000U) << 16;
  const float scaled = std::bit_cast<float>(magnitude << 13) * kExponentShift;
  const std::uint32_t special = magnitude >= 0x7c00U ? 0x7f800000U : 0U;  // inf and NaN
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
}

constexpr float to_float(f8_e4m3_t x) noexcept {
  constexpr float kExponentShift = 0x1p120F;  // 2^(127 - 7): rebias, subnormals included
  const std::uint32_t magnitude = x.bits & 0x7fU;
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x80U) << 24;
  const float scaled = std::bit_cast<float>(magnitude << 20) * kExponentShift;
  const std::uint32_t special = magnitude == 0x7fU ? 0x7fc00000U : 0U;  // NaN
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
}

template <class T>
constexpr T from_float(float x) noexcept;

template <>
constexpr float from_float<float>(float x) noexcept {
  return x;
}

/// Round to nearest even; NaN stays NaN.
template <>
constexpr bf16_t from_float<bf16_t>(float x) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40U;
  const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
  return {static_cast<std::uint16_t>(is_nan ? quiet : rounded)};
}

/// Round to nearest even; what rounds above 65,504 becomes infinity; NaN stays NaN.
template <>
constexpr half_t from_float<half_t>(float x) noexcept {
  constexpr std::uint32_t kSmallestNormal = 0x38800000U;  // 2^-14
  constexpr std::uint32_t kTooLarge = 0x47800000U;        // 2^16
  constexpr std::uint32_t kRebias = 112U << 23;           // 127 - 15
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const std::uint32_t normal = (magnitude - kRebias + 0x0fffU + ((magnitude >> 13) & 1U)) >> 13;
  // The unit in the last place of 0.5 is 2^-24, that of a subnormal: the addition rounds for us.
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) -
      std::bit_cast<std::uint32_t>(0.5F);
  std::uint32_t value = magnitude < kSmallestNormal ? subnormal : normal;
  value = magnitude >= kTooLarge ? 0x7c00U : value;
  value = magnitude > 0x7f800000U ? 0x7e00U : value;
  return {static_cast<std::uint16_t>(((bits >> 16) & 0x8000U) | value)};
}

/// Round to nearest even; what rounds above 448 becomes 448; NaN stays NaN.
template <>
constexpr f8_e4m3_t from_float<f8_e4m3_t>(float x) noexcept {
  constexpr std::uint32_t kSmallestNormal = 0x3c800000U;  // 2^-6
  constexpr std::uint32_t kMost = 0x43e00000U;            // 448
  constexpr std::uint32_t kRebias = 120U << 23;           // 127 - 7
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const std::uint32_t normal = (magnitude - kRebias + 0x7ffffU + ((magnitude >> 20) & 1U)) >> 20;
  // The unit in the last place of 2^14 is 2^-9, that of a subnormal: the addition rounds for us.
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14F) -
      std::bit_cast<std::uint32_t>(0x1p14F);
  std::uint32_t value = magnitude < kSmallestNormal ? subnormal : normal;
  value = magnitude > kMost ? 0x7eU : value;
  value = magnitude > 0x7f800000U ? 0x7fU : value;
  return {static_cast<std::uint8_t>(((bits >> 24) & 0x80U) | value)};
}

}  // namespace spectx
