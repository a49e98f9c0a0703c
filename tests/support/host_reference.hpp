// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "reference.hpp"
#include "spectx/dispatch.hpp"
#include "spectx/host_run.hpp"

// HostRun's rules for smaller types, written out in double precision.
namespace spectx::test {

/// Value of an e4m3 by its definition; 0x7f and 0xff are NaN.
inline double f8_by_definition(unsigned bits) {
  const double sign = (bits & 0x80U) != 0 ? -1 : 1;
  const int exponent = static_cast<int>((bits >> 3) & 15U);
  const double fraction = static_cast<double>(bits & 7U) / 8;
  if ((bits & 0x7fU) == 0x7fU) return std::numeric_limits<double>::quiet_NaN();
  return exponent == 0 ? sign * std::ldexp(fraction, -6)
                       : sign * std::ldexp(1 + fraction, exponent - 7);
}

/// The nearest e4m3, ties to the even one, 448 beyond.
inline unsigned f8_by_search(double x) {
  static const std::vector<double> values = [] {
    std::vector<double> all;
    for (unsigned bits = 0; bits < 0x7fU; ++bits) all.push_back(f8_by_definition(bits));
    return all;
  }();
  const double magnitude = std::abs(x);
  unsigned low = 0;
  unsigned high = 0x7e;
  while (high - low > 1) {
    const unsigned middle = (low + high) / 2;
    (values[middle] <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - values[low];
  const double above = values[high] - magnitude;
  const unsigned best = below < above || (below == above && low % 2 == 0) ? low : high;
  return best | (std::signbit(x) ? 0x80U : 0U);
}

inline double largest_of(const std::vector<float>& part) {
  double largest = 0;
  for (const float x : part) largest = std::max(largest, std::abs(static_cast<double>(x)));
  return largest;
}

/// A part as it lies in the host tier.
struct StoredPart {
  float scale = 0;
  std::vector<std::uint8_t> numbers;
};

/// @param part  finite
inline StoredPart store_by_definition(const std::vector<float>& part, DType host) {
  const double largest = largest_of(part);
  double scale = std::ldexp(1.0, -126);
  if (host == DType::f8_e4m3) {
    while (largest > 448 * scale) scale *= 2;
  } else if (largest / 127 > scale) {
    int exponent = 0;
    const double significand = std::frexp(largest / 127, &exponent);
    scale = std::ldexp(std::floor(std::ldexp(significand, 17)), exponent - 17);
  }
  StoredPart stored;
  stored.scale = static_cast<float>(scale);
  const float inverse = 1 / stored.scale;
  for (const float x : part) {
    const double scaled = static_cast<double>(x * inverse);
    const double number = std::clamp(std::nearbyint(scaled), -127.0, 127.0);
    stored.numbers.push_back(host == DType::f8_e4m3
                                 ? static_cast<std::uint8_t>(f8_by_search(scaled))
                                 : static_cast<std::uint8_t>(static_cast<std::int8_t>(number)));
  }
  return stored;
}

inline std::vector<float> load_by_definition(const StoredPart& stored, DType host) {
  std::vector<float> part;
  for (const std::uint8_t number : stored.numbers) {
    const double value = host == DType::f8_e4m3
                             ? f8_by_definition(number)
                             : static_cast<double>(static_cast<std::int8_t>(number));
    part.push_back(static_cast<float>(value * static_cast<double>(stored.scale)));
  }
  return part;
}

/// What a part is when it has been in the host tier.
inline std::vector<float> through_host(const std::vector<float>& part, DType rows, DType host) {
  if (host == rows) return part;
  std::vector<float> back = load_by_definition(store_by_definition(part, host), host);
  dispatch_dtype(rows, [&]<class T>() {
    for (float& x : back) x = to_float(from_float<T>(x));
  });
  return back;
}

}  // namespace spectx::test
