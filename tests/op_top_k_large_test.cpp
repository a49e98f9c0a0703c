// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/batches.hpp"
#include "support/random.hpp"
#include "support/selection_reference.hpp"
#include "support/slow_run.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

using Ids = std::vector<std::int32_t>;

constexpr index_t kShortest = 16'384;  // that clusters of 8 blocks take

/// The selection of one item with one head; its scores begin where no vector load may.
Ids select(Backend& backend, const std::vector<float>& scores, SelectionConfig rule) {
  const auto length = static_cast<index_t>(scores.size());
  const BatchData batch(backend,
                        {{.request = {0}, .first = length - 1, .rows = 1, .selects = true}});
  const DeviceMatrix table(backend, DType::f32, 1, length, scores, Padding{0, 1});
  const DeviceArray<std::int32_t> ids(backend, Ids(at(rule.budget), -5));
  const DeviceArray<std::int32_t> counts(backend, {-5});
  run_on(backend, [&](StreamView stream) {
    backend.top_k(
        {.scores = table.heads(1),
         .batch = batch.get(),
         .rule = rule,
         .out = {.ids = ids, .counts = counts, .coverage = {}, .max_budget = rule.budget}},
        stream);
  });
  REQUIRE(counts.read() == Ids{static_cast<std::int32_t>(rule.budget)});
  return ids.read();
}

}  // namespace

TEST_CASE("top_k of long rows: many that share their leading digits, or are equal") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const float spread = GENERATE(from_range(values({0.0F, 0x1p-12F, 3.0F}, {0.0F, 3.0F})));
  const auto [length, budget] = GENERATE(from_range(combinations(
      values<index_t>({34'817, 131'072}, {kShortest}), values<index_t>({2048, 8192}, {2048}))));
  CAPTURE(b.name, length, budget, spread);
  std::vector<float> scores = Random(9).normal(length);
  for (float& score : scores) score = -12 + score * spread;
  const SelectionConfig rule{.budget = budget};
  REQUIRE(select(*b.backend, scores, rule) == top_k_reference(scores, length, rule));
}

TEST_CASE("top_k of long rows whose largest scores lie side by side") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const index_t length = GENERATE(from_range(values<index_t>({20'000, 131'072}, {kShortest})));
  const index_t first = GENERATE(from_range(values<index_t>({0, 777, 9'000}, {777})));
  CAPTURE(b.name, length, first);
  std::vector<float> scores = Random(4).normal(length);
  for (index_t i = first; i < first + 3000; ++i) scores[at(i)] += 100;
  scores[at(first + 50)] = std::numeric_limits<float>::quiet_NaN();
  const SelectionConfig rule{.budget = 2048};
  REQUIRE(select(*b.backend, scores, rule) == top_k_reference(scores, length, rule));
}
