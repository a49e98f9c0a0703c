// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/batches.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

using namespace spectx;
using namespace spectx::test;

TEST_CASE("join_heads is the max, or the log of the mean weight, of all heads") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const GroupReduce reduce = GENERATE(GroupReduce::max, GroupReduce::mean);
  const index_t heads = GENERATE(1, 2, 5);
  CAPTURE(b.name, reduce == GroupReduce::max, heads);
  constexpr index_t kLength = 2100;
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const BatchData batch(*b.backend, {{.request = {1}, .first = 2047, .rows = 2, .selects = true},
                                     {.request = {0}, .first = 100, .rows = 1},
                                     {.request = {2}, .first = 8, .rows = 1, .selects = true}});
  std::vector<float> scores = Random(9).normal(3 * heads * kLength, 4);
  for (index_t h = 0; h < heads; ++h) scores[at(h * kLength)] = kNone;
  scores[at((heads - 1) * kLength + 77)] = kNaN;
  const DeviceMatrix table(*b.backend, DType::f32, 3, heads * kLength, scores);
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->join_heads({.scores = table.heads(heads), .batch = batch.get(), .reduce = reduce},
                          stream);
  });
  const std::vector<float> joined = table.read();
  for (index_t i = 0; i < static_cast<index_t>(joined.size()); ++i) {
    const index_t item = i / (heads * kLength);
    const index_t n = i % (heads * kLength);
    const index_t tokens = item == 0 ? 2048 : item == 1 ? 0 : 9;
    if (n >= tokens) {
      if (n % kLength != 77) REQUIRE((joined[at(i)] == scores[at(i)]));
      continue;
    }
    double largest = -std::numeric_limits<double>::infinity();
    double weight = 0;
    for (index_t h = 0; h < heads; ++h) {
      const auto score = static_cast<double>(scores[at(i + h * kLength)]);
      largest = std::max(largest, score);
      weight += std::exp(score) / static_cast<double>(heads);
    }
    CAPTURE(item, n);
    if (n == 77) {
      REQUIRE(std::isnan(joined[at(i)]));
    } else if (reduce == GroupReduce::max || (item == 0 && n == 0)) {
      REQUIRE(static_cast<double>(joined[at(i)]) == largest);
    } else {
      const double allowed = kSumSlack * kEpsilon * (1 + std::abs(std::log(weight)));
      REQUIRE(std::abs(static_cast<double>(joined[at(i)]) - std::log(weight)) <= allowed);
    }
  }
}
