// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <random>
#include <vector>

#include "spectx/types.hpp"

namespace spectx::test {

/// Values for tests, from a seed.
class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}

  index_t below(index_t limit) {
    return std::uniform_int_distribution<index_t>(0, limit - 1)(engine_);
  }
  /// Multiples of 1/64 in [-1, 1]: every storage type holds them, and sums of products are exact.
  std::vector<float> sixtyfourths(index_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = static_cast<float>(below(129) - 64) / 64;
    return values;
  }
  std::vector<float> normal(index_t count, float scale = 1) {
    std::normal_distribution<float> distribution(0, scale);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = distribution(engine_);
    return values;
  }
  std::vector<std::byte> bytes(index_t count) {
    std::vector<std::byte> values(static_cast<std::size_t>(count));
    for (std::byte& value : values) value = static_cast<std::byte>(below(256));
    return values;
  }
  std::vector<std::int32_t> permutation(index_t count) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(count));
    std::iota(values.begin(), values.end(), 0);
    std::shuffle(values.begin(), values.end(), engine_);
    return values;
  }
  /// `count` numbers of [0, limit), ascending.
  std::vector<std::int32_t> ascending(index_t count, index_t limit) {
    std::vector<std::int32_t> values = permutation(limit);
    values.resize(static_cast<std::size_t>(count));
    std::sort(values.begin(), values.end());
    return values;
  }

 private:
  std::mt19937 engine_;
};

}  // namespace spectx::test
