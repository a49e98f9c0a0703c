// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/batches.hpp"
#include "support/guard_reference.hpp"
#include "support/random.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

using Ints = std::vector<std::int32_t>;
constexpr index_t kHeads = 3;
constexpr index_t kGroups = 2;
constexpr index_t kRequests = 4;
const std::vector<bool> kBoth = {false, true};

/// The device arrays of a guard over four requests, of which the odd ones are offloaded.
struct Ladder {
  Ladder(Backend& b, const SelectionConfig& r)
      : backend(b),
        rule(r),
        counts(b, Ints(kRequests * kHeads, 7)),
        budgets(b, Ints(kRequests, -9)),
        rungs(b, Ints(kRequests, 0)),
        resident(b, {kGroups, kGroups - 1, kGroups, 0}),
        outcomes(b, std::vector<GuardOutcome>(kRequests, GuardOutcome::limited)),
        coverage(b, std::vector<float>(2 * kRequests * kHeads, -1)) {}

  void climb(const Batch* batch, index_t rung) {
    run_on(backend, [&](StreamView stream) {
      backend.guard({.batch = batch,
                     .rule = rule,
                     .rung = rung,
                     .kv_heads = kHeads,
                     .selection = {.ids = {},
                                   .counts = counts,
                                   .coverage = coverage,
                                   .max_budget = rule.largest_budget(),
                                   .outcomes = outcomes},
                     .budgets = budgets,
                     .rungs = rungs,
                     .resident_groups = resident.data(),
                     .groups = kGroups},
                    stream);
    });
  }

  Backend& backend;
  SelectionConfig rule;
  DeviceArray<std::int32_t> counts, budgets, rungs, resident;
  DeviceArray<GuardOutcome> outcomes;
  DeviceArray<float> coverage;
};

/// Coverages in 64ths, so that sums are exact: {least, mean} of every KV head.
std::vector<float> random_coverage(Random& random, index_t items) {
  std::vector<float> coverage;
  for (index_t i = 0; i < items; ++i) {
    const auto level = static_cast<index_t>(random.below(40));
    for (index_t h = 0; h < kHeads; ++h) {
      coverage.push_back(0.25F);
      coverage.push_back(static_cast<float>(24 + level + random.below(2)) / 64);
    }
  }
  return coverage;
}

Bound mean_of(const std::vector<float>& coverage, index_t item) {
  double sum = 0;
  for (index_t h = 0; h < kHeads; ++h) {
    sum += static_cast<double>(coverage[at(2 * (item * kHeads + h) + 1)]);
  }
  return {sum / kHeads, 0};
}

}  // namespace

TEST_CASE("the guard takes the smallest rung that covers enough, and more to come down") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [max_budget, hysteresis, may_read_all] = GENERATE(from_range(
      combinations(std::vector<index_t>{0, 16, 32, 100}, std::vector{0.0F, 0.5F}, kBoth)));
  CAPTURE(b.name, max_budget, hysteresis, may_read_all);
  Random random(static_cast<unsigned>(max_budget) + 1);
  Ladder ladder(*b.backend, {.budget = 16,
                             .sinks = 2,
                             .recent_window = 4,
                             .max_budget = max_budget,
                             .min_coverage = 0.75F,
                             .hysteresis = hysteresis,
                             .may_read_all = may_read_all});
  const index_t rungs = ladder.rule.num_rungs();
  REQUIRE(rungs == (max_budget < 32 ? 1 : max_budget < 64 ? 2 : 4));
  std::array<GuardReference, kRequests> references;
  std::array<int, 4> seen{};
  for (int step = 0; step < unless_slow(60, 5); ++step) {
    CAPTURE(step);
    const index_t length = 20 + static_cast<index_t>(random.below(120));
    const std::vector<ScheduledItem> items = {
        {.request = {2}, .first = 500 + step, .rows = 1, .selects = true},
        {.request = {0}, .first = length - 3, .rows = 3, .selects = true},
        {.request = {3}, .first = 30, .rows = 1, .selects = step % 4 != 0},
        {.request = {1}, .first = step, .rows = 200, .selects = true}};
    if (step == 0) references[1] = {};
    const BatchData batch(*b.backend, items);
    std::vector<std::vector<float>> coverage;
    std::vector<std::vector<Bound>> means(items.size());
    const Ints old_rungs = ladder.rungs.read();
    ladder.climb(batch.get(), -1);
    for (index_t r = 0; r < rungs; ++r) {
      ladder.counts.write(Ints(kRequests * kHeads, static_cast<std::int32_t>(r)));
      coverage.push_back(random_coverage(random, kRequests));
      ladder.coverage.write(coverage.back());
      for (std::size_t i = 0; i < items.size(); ++i) {
        means[i].push_back(mean_of(coverage.back(), static_cast<index_t>(i)));
      }
      ladder.climb(batch.get(), r);
    }
    REQUIRE(ladder.budgets.read() == Ints(kRequests, 0));
    const std::vector<GuardOutcome> outcomes = ladder.outcomes.read();
    const Ints counts = ladder.counts.read();
    const std::vector<float> left = ladder.coverage.read();
    const Ints new_rungs = ladder.rungs.read();
    for (std::size_t i = 0; i < items.size(); ++i) {
      CAPTURE(i);
      const auto request = at(items[i].request.value);
      const bool is_full = outcomes[i] == GuardOutcome::full;
      ++seen[static_cast<std::size_t>(outcomes[i])];
      if (items[i].selects) {
        REQUIRE(references[request].is_right(ladder.rule, items[i].first + items[i].rows,
                                             request % 2 == 0, outcomes[i],
                                             index_t{new_rungs[request]}, means[i]));
      } else {
        REQUIRE(outcomes[i] == GuardOutcome::kept);
        REQUIRE(new_rungs[request] == old_rungs[request]);
      }
      for (std::size_t n = i * kHeads; n < (i + 1) * kHeads; ++n) {
        REQUIRE(counts[n] == (is_full ? kAllTokens : static_cast<std::int32_t>(rungs - 1)));
        REQUIRE(left[2 * n + 1] == (is_full ? 1 : coverage.back()[2 * n + 1]));
      }
    }
  }
  if (is_slow_run()) return;  // too few steps to have seen everything
  REQUIRE((seen[0] > 0 && seen[3] > 0));
  REQUIRE((seen[1] > 0) == (rungs > 1));
  REQUIRE((seen[2] > 0) == may_read_all);
}

TEST_CASE("the guard forgets the rung of a request that starts anew") {
  const NamedBackend b = GENERATE(from_range(backends()));
  Ladder ladder(
      *b.backend,
      {.budget = 16, .sinks = 2, .recent_window = 4, .max_budget = 64, .min_coverage = 0.5F});
  ladder.rungs.write({2, 1, 2, 1});
  const BatchData batch(*b.backend, {{.request = {3}, .first = 0, .rows = 9, .is_dense = true},
                                     {.request = {2}, .first = 7, .rows = 1, .selects = true},
                                     {.request = {0}, .first = 0, .rows = 1}});
  ladder.climb(batch.get(), -1);
  REQUIRE(ladder.rungs.read() == Ints{0, 1, 2, 0});
  REQUIRE(ladder.budgets.read() == Ints{16, 16, 16, -9});
  REQUIRE(ladder.outcomes.read()[0] == GuardOutcome::kept);
  const BatchData none(*b.backend, {});
  ladder.climb(none.get(), 0);
  REQUIRE(ladder.budgets.read() == Ints{16, 16, 16, -9});
}
