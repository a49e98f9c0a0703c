// SPDX-License-Identifier: Apache-2.0
#include "spectx/half.hpp"

#include <cmath>
#include <limits>

#include "catch.hpp"
#include "support/host_reference.hpp"

using spectx::bf16_t;
using spectx::f8_e4m3_t;
using spectx::from_float;
using spectx::half_t;
using spectx::to_float;

namespace {

template <class T>
T with_bits(unsigned bits) {
  return T{static_cast<std::uint16_t>(bits)};
}

/// The value that IEEE 754 gives to a binary16, by its definition.
double half_by_definition(unsigned bits) {
  const double sign = (bits & 0x8000U) != 0 ? -1 : 1;
  const int exponent = static_cast<int>((bits >> 10) & 31U);
  const double fraction = static_cast<double>(bits & 1023U) / 1024;
  if (exponent == 31) {
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  return exponent == 0 ? sign * std::ldexp(fraction, -14)
                       : sign * std::ldexp(1 + fraction, exponent - 15);
}

/// Nearest of the two neighbours of x, ties to the even one; T's bits grow with its magnitude.
template <class T>
T nearest_by_search(float x) {
  unsigned low = 0;
  unsigned high = sizeof(T) == 2 && std::is_same_v<T, half_t> ? 0x7c00U : 0x7f80U;
  const double magnitude = std::fabs(static_cast<double>(x));
  const unsigned infinity = high;
  const double limit = 2 * static_cast<double>(to_float(with_bits<T>(infinity - 1))) -
                       static_cast<double>(to_float(with_bits<T>(infinity - 2)));
  auto value = [&](unsigned bits) {
    return bits == infinity ? limit : static_cast<double>(to_float(with_bits<T>(bits)));
  };
  while (high - low > 1) {
    const unsigned middle = (low + high) / 2;
    (value(middle) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - value(low);
  const double above = value(high) - magnitude;
  const unsigned best = below < above || (below == above && low % 2 == 0) ? low : high;
  return with_bits<T>(best | (std::signbit(x) ? 0x8000U : 0U));
}

}  // namespace

TEST_CASE("every binary16 has the value of its definition and survives the round trip") {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const float value = to_float(with_bits<half_t>(bits));
    const double expected = half_by_definition(bits);
    CAPTURE(bits);
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(value));
      REQUIRE(std::isnan(to_float(from_float<half_t>(value))));
    } else {
      REQUIRE(static_cast<double>(value) == expected);
      REQUIRE(from_float<half_t>(value).bits == bits);
    }
  }
}

TEMPLATE_TEST_CASE("from_float rounds to nearest even", "", half_t, bf16_t) {
  std::uint32_t state = 12345;
  for (int i = 0; i < 200000; ++i) {
    state = state * 1664525U + 1013904223U;
    const float x = std::bit_cast<float>(state);
    CAPTURE(x);
    if (std::isnan(x)) {
      REQUIRE(std::isnan(to_float(from_float<TestType>(x))));
    } else {
      REQUIRE(from_float<TestType>(x).bits == nearest_by_search<TestType>(x).bits);
    }
  }
  const float infinity = std::numeric_limits<float>::infinity();
  REQUIRE(to_float(from_float<TestType>(infinity)) == infinity);
  REQUIRE(to_float(from_float<TestType>(-infinity)) == -infinity);
}

TEST_CASE("every e4m3 has the value of its definition and survives the round trip") {
  for (unsigned bits = 0; bits < 256; ++bits) {
    const float value = to_float(f8_e4m3_t{static_cast<std::uint8_t>(bits)});
    const double expected = spectx::test::f8_by_definition(bits);
    CAPTURE(bits);
    REQUIRE(from_float<f8_e4m3_t>(value).bits == bits);
    REQUIRE((std::isnan(expected) ? std::isnan(value) : static_cast<double>(value) == expected));
  }
}

TEST_CASE("from_float rounds to the nearest e4m3, at most to 448") {
  const auto check = [](float x) {
    CAPTURE(x);
    const unsigned expected = std::isnan(x) ? 0x7fU | (std::signbit(x) ? 0x80U : 0U)
                                            : spectx::test::f8_by_search(static_cast<double>(x));
    REQUIRE(from_float<f8_e4m3_t>(x).bits == expected);
  };
  std::uint32_t state = 12345;
  for (int i = 0; i < 20000; ++i) {
    state = state * 1664525U + 1013904223U;
    check(std::bit_cast<float>(state));
    // Its exponents, and what lies between two numbers.
    check(std::ldexp(static_cast<float>(state >> 20) / 256, static_cast<int>(state % 21) - 12));
  }
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float x : {0.0F, -0.0F, 448.0F, 464.0F, 480.0F, -1e30F, infinity, -infinity}) check(x);
}
