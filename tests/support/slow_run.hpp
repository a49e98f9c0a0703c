// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <tuple>
#include <vector>

namespace spectx::test {

/// Whether SPECTX_TEST_SLOW_RUN=1: under compute-sanitizer, where a launch takes a hundred times as
/// long. Tests then choose the fewest cases that still run all the code of every kernel.
bool is_slow_run();

/// How often: `all`, but `few` in a slow run.
template <class T>
T unless_slow(T all, T few) {
  return is_slow_run() ? few : all;
}

/// Of a generator: `all` values, but `few` in a slow run.
template <class T>
std::vector<T> values(std::initializer_list<T> all, std::initializer_list<T> few) {
  return is_slow_run() ? few : all;
}

/// Every combination of the lists' values. In a slow run as many as the longest list has values:
/// each value of each list is in one at least.
template <class T>
std::vector<std::tuple<T>> combinations(const std::vector<T>& values) {
  return std::vector<std::tuple<T>>(values.begin(), values.end());
}
template <class First, class Second, class... Rest>
std::vector<std::tuple<First, Second, Rest...>> combinations(const std::vector<First>& first,
                                                             const std::vector<Second>& second,
                                                             const std::vector<Rest>&... rest) {
  std::vector<std::tuple<First, Second, Rest...>> chosen;
  if (is_slow_run()) {
    const std::size_t count = std::max({first.size(), second.size(), rest.size()...});
    for (std::size_t i = 0; i < count; ++i) {
      // Each list is turned differently in every round, so that the same values seldom meet again.
      std::size_t place = 1;
      const auto value_of = [&](const auto& list) {
        return list[(i + i / (list.size() * place++)) % list.size()];
      };
      chosen.push_back({first[i % first.size()], value_of(second), value_of(rest)...});
    }
    return chosen;
  }
  const auto tails = combinations(second, rest...);
  for (const First& value : first) {
    for (const auto& tail : tails) {
      chosen.push_back(std::tuple_cat(std::tuple<First>(value), tail));
    }
  }
  return chosen;
}

}  // namespace spectx::test
