// SPDX-License-Identifier: Apache-2.0
// The guard in whole steps: what it does to results, and what the report says of it.
#include <map>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/toy_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr SelectionConfig kLadder{.budget = 24,
                                  .sinks = 2,
                                  .recent_window = 16,
                                  .max_budget = 80,
                                  .min_coverage = 0.45F,
                                  .hysteresis = 0.2F,
                                  .may_read_all = false};
const int kSteps = unless_slow(64, 3);

/// The same, where nothing is enough.
SelectionConfig insatiable(index_t budget, index_t max_budget) {
  SelectionConfig rule = kLadder;
  rule.budget = budget;
  rule.max_budget = max_budget;
  rule.min_coverage = 1;
  rule.may_read_all = true;
  return rule;
}

struct Run {
  int threads = 1;
  index_t slots = 0;
  std::int32_t resident_groups = kToyGroups;
  int move_every = 1 << 20;
  int neighbours = 0;
};

ToyTrace trace_of(const Run& run) {
  const auto backend = make_backend({.threads = run.threads, .two_memories = run.slots > 0});
  ToyLoop loop(*backend, toy_plan(kLadder, run.slots));
  ToyDecode decode;
  const std::array<std::int32_t, 1> token = {9};
  for (int n = 0; n < run.neighbours; ++n) {
    const RequestId id = loop.pool.open(100);
    loop.prefill(id, toy_text(60 + 7 * n, n));
    decode.neighbours.push_back({id, token, n == 1});
  }
  decode.id = loop.pool.open(256);
  if (run.resident_groups < kToyGroups) loop.place(decode.id, run.resident_groups);
  loop.prefill(decode.id, toy_text(75));
  return decode.run(loop, kSteps, [&](int n) {
    if (n % run.move_every != run.move_every - 1) return;
    loop.place(decode.id, n / run.move_every * 3 % static_cast<int>(kToyGroups + 1));
  });
}

}  // namespace

TEST_CASE("what the guard reads depends on the request alone") {
  const Run run =
      GENERATE(Run{.threads = 3}, Run{.neighbours = 1}, Run{.neighbours = 3},
               Run{.slots = 80, .resident_groups = 0}, Run{.slots = 160, .resident_groups = 2},
               Run{.slots = 96, .resident_groups = 1, .neighbours = 2},
               Run{.slots = 88, .resident_groups = 2, .move_every = 3});
  CAPTURE(run.threads, run.slots, run.resident_groups, run.move_every, run.neighbours);
  if (is_slow_run() && run.neighbours != 2) return;
  const ToyTrace alone = trace_of({});
  std::map<std::size_t, int> counts;
  for (const auto& ids : alone.ids) ++counts[ids.size()];
  CAPTURE(counts[24], counts[48], counts[80]);
  REQUIRE((is_slow_run() || counts.size() >= 2));  // rungs, and none of more than 80 rows
  for (const auto& [count, _] : counts) REQUIRE((count == 24 || count == 48 || count == 80));
  const ToyTrace other = trace_of(run);
  REQUIRE(other.ids == alone.ids);
  REQUIRE(other.bits == alone.bits);
  REQUIRE(other.tokens == alone.tokens);
}

TEST_CASE("the guard gives the bits of the dense step where it reads everything") {
  if (is_slow_run()) return;  // no kernel that the others leave out
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  const auto run = [&](const SelectionConfig& rule, bool is_dense) {
    ToyLoop loop(*backend, toy_plan(rule, 96));
    ToyDecode decode;
    decode.id = loop.pool.open(256);
    decode.is_dense = is_dense;
    loop.prefill(decode.id, toy_text(75));
    ToyTrace trace = decode.run(loop, 20);
    // A request that has read everything may leave the device: what is selected then is fetched.
    loop.place(decode.id, 1);
    loop.head.set_rule({.budget = 48, .sinks = 2, .recent_window = 16});
    decode.is_dense = false;
    const ToyTrace rest = decode.run(loop, 20);
    trace.bits.insert(trace.bits.end(), rest.bits.begin(), rest.bits.end());
    trace.tokens.insert(trace.tokens.end(), rest.tokens.begin(), rest.tokens.end());
    REQUIRE(rest.ids.front().size() == 48);
    return trace;
  };
  const ToyTrace guarded = run(insatiable(24, 48), false);
  const ToyTrace dense = run(insatiable(24, 48), true);
  REQUIRE(guarded.bits == dense.bits);
  REQUIRE(guarded.tokens == dense.tokens);
}

TEST_CASE("the report counts what the guard did") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  ToyLoop loop(*backend, toy_plan(insatiable(24, 80), 80));
  const RequestId resident = loop.pool.open(256);
  const RequestId offloaded = loop.pool.open(256);
  const RequestId brief = loop.pool.open(256);
  const std::array<std::int32_t, 1> token = {5};
  loop.prefill(resident, toy_text(99));
  loop.place(offloaded, 1);
  loop.prefill(offloaded, toy_text(119, 5));
  loop.prefill(brief, toy_text(39));
  const auto check = [&](index_t raised, index_t full, index_t limited, double mean_budget) {
    const StepReport& report = loop.pipeline.report();
    REQUIRE(report.guard_raised == raised);
    REQUIRE(report.guard_full == full);
    REQUIRE(report.guard_limited == limited);
    REQUIRE(report.mean_budget == mean_budget);
  };
  check(0, 0, 0, 0);
  loop.step({resident, token});
  check(0, 1, 0, 100);
  loop.step({offloaded, token});
  check(0, 0, 1, 80);
  loop.step({brief, token});  // its 40 tokens fit the second rung
  check(1, 0, 0, 40);
  loop.step({resident, token, true});
  check(0, 0, 0, 0);
  loop.step(
      std::array{BatchItem{brief, token}, BatchItem{resident, token}, BatchItem{offloaded, token}});
  check(1, 1, 1, (41.0 + 102 + 80) / 3);
  const index_t heads = loop.model.shape.kv_heads;
  REQUIRE(loop.pipeline.report().hits + loop.pipeline.report().misses == heads * 79);

  SelectionConfig rule = insatiable(24, 80);
  rule.min_coverage = 1e-6F;  // anything will do
  loop.head.set_rule(rule);
  loop.step(std::array{BatchItem{resident, token}, BatchItem{offloaded, token}});
  check(0, 0, 0, 24);
  loop.head.set_rule({.budget = 30, .sinks = 2, .recent_window = 16});
  loop.step(std::array{BatchItem{resident, token}, BatchItem{offloaded, token}});
  check(0, 0, 0, 30);
}
