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

static_assert(sizeof(half_t) == 2 && sizeof(bf16_t) == 2);

// Branch-free, so that compilers vectorise loops over them whatever the instruction set.

constexpr float to_float(float x) noexcept { return x; }

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

}  // namespace spectx
