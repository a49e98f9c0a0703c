// SPDX-License-Identifier: Apache-2.0
#include "eval/selections.hpp"

#include <algorithm>
#include <numeric>
#include <random>

#include "catch.hpp"
#include "eval/slot_replay.hpp"
#include "support/backends.hpp"

using namespace spectx;
using namespace spectx::eval;

namespace {

/// Sinks, window and the best of the middle by a stable sort.
std::vector<std::int32_t> sorted_best(const std::vector<float>& scores, const SelectionConfig& rule,
                                      std::size_t budget) {
  std::vector<std::int32_t> middle(scores.size());
  std::iota(middle.begin(), middle.end(), 0);
  middle.erase(middle.end() - rule.recent_window, middle.end());
  middle.erase(middle.begin(), middle.begin() + rule.sinks);
  std::stable_sort(middle.begin(), middle.end(), [&](std::int32_t a, std::int32_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  middle.resize(budget - static_cast<std::size_t>(rule.sinks + rule.recent_window));
  for (index_t i = 0; i < rule.sinks; ++i) middle.push_back(static_cast<std::int32_t>(i));
  for (index_t i = 0; i < rule.recent_window; ++i) {
    middle.push_back(static_cast<std::int32_t>(scores.size()) - 1 - static_cast<std::int32_t>(i));
  }
  std::sort(middle.begin(), middle.end());
  return middle;
}

}  // namespace

TEST_CASE("what is picked at several budgets is the best at each, ties to the lower id") {
  const unsigned seed = GENERATE(1U, 2U, 3U);
  const int values = GENERATE(2, 7, 1000);  // few: many ties
  const SelectionConfig rule{.budget = 0, .sinks = 2, .recent_window = 5};
  CAPTURE(seed, values);
  std::mt19937 random(seed);
  std::vector<float> scores(211);
  for (float& s : scores) {
    s = static_cast<float>(random() % static_cast<unsigned>(values)) - 3;
  }
  std::vector<std::vector<std::int32_t>> ids;
  for (const std::size_t budget : {7U, 8U, 30U, 100U, 210U, 211U}) ids.emplace_back(budget);
  const std::vector<std::span<std::int32_t>> rooms(ids.begin(), ids.end());
  pick(scores, rule, rooms);
  for (const auto& list : ids) REQUIRE(list == sorted_best(scores, rule, list.size()));
}

TEST_CASE("overlap and misses of recorded selections") {
  // One KV head, three rows a step of which one changes.
  Recorded recorded(1, 1, 3);
  const std::vector<std::vector<std::int32_t>> steps = {{0, 1, 9}, {0, 2, 9}, {0, 1, 9}, {0, 3, 9}};
  for (std::size_t s = 0; s < steps.size(); ++s) {
    recorded.add_step();
    std::copy(steps[s].begin(), steps[s].end(),
              recorded.room(static_cast<index_t>(s), 0, 0).begin());
  }
  REQUIRE(recorded.overlap() == 6.0 / 9);
  for (const auto& [name, backend] : test::backends()) {
    CAPTURE(name);
    const Stream stream = backend->make_stream();
    // Three slots forget token 1 for 2; four still have it.
    REQUIRE(miss_rate(*backend, stream, recorded, 20, 3) == 3.0 / 9);
    REQUIRE(miss_rate(*backend, stream, recorded, 20, 4) == 2.0 / 9);
  }
}
