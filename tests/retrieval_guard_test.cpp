// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/head_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

/// Random heads are sure of little: thresholds between what 20 and 160 rows of 150 to 400 hold.
HeadSetup guarded(float min_coverage, index_t max_budget = 160) {
  HeadSetup setup;
  setup.selection = {.budget = 20,
                     .sinks = 3,
                     .recent_window = 12,
                     .max_budget = max_budget,
                     .min_coverage = min_coverage,
                     .hysteresis = 0.2F};
  return setup;
}

}  // namespace

TEST_CASE("a guarded selection is the smallest rung that covers enough") {
  const auto [min_coverage, may_read_all] = GENERATE(from_range(
      combinations(values({0.5F, 0.7F, 0.85F, 1.0F}, {0.7F, 1.0F}), std::vector{true, false})));
  const index_t max_budget = GENERATE(from_range(values<index_t>({0, 40, 160}, {160})));
  CAPTURE(min_coverage, max_budget, may_read_all);
  const auto backend = make_backend({.threads = 2});
  HeadSetup setup = guarded(min_coverage, max_budget);
  setup.selection.may_read_all = may_read_all;
  HeadLoop loop(*backend, setup, 21);
  const RequestId a = loop.open();
  const RequestId b = loop.open();
  loop.step({loop.item(a, 120, true)});
  loop.step({loop.item(b, 26, true)});
  const int steps = unless_slow(40, 8);
  for (int n = 0; n < steps; ++n) {
    loop.step({loop.item(b, 1), loop.item(a, n % 4 == 3 ? 4 : 1)}, n % 5 == 2);
    if (n % 4 == 3) loop.rewind(a, loop.pool.length(a) - 2);
    for (const std::string& what : loop.wrong) FAIL_CHECK(n << ": " << what);
    REQUIRE(loop.wrong.empty());
  }
  const auto [kept, raised, full, limited] = loop.outcomes;
  CAPTURE(kept, raised, full, limited);
  REQUIRE(kept + raised + full + limited == 2 * steps);
  if (is_slow_run()) return;  // too few steps to have seen everything
  if (min_coverage == 0.7F && max_budget == 160) REQUIRE((kept > 5 && raised > 5));
  if (min_coverage == 1.0F && may_read_all) REQUIRE((full > 0 && limited == 0));
  if (min_coverage == 1.0F && !may_read_all) REQUIRE((full == 0 && limited > 0));
}

TEST_CASE("a request that takes over an id starts on the first rung") {
  const auto backend = make_backend();
  HeadLoop loop(*backend, guarded(0.7F), 25);
  bool was_raised = false;
  for (int round = 0; round < unless_slow(4, 2); ++round) {
    const RequestId id = loop.open();
    loop.step({loop.item(id, 100 + 5 * round, true)});
    for (int n = 0; n < unless_slow(12, 4); ++n) loop.step({loop.item(id, 1)});
    REQUIRE(loop.wrong == std::vector<std::string>{});
    was_raised = was_raised || loop.guards.at(id.value).rung() > 0;
    loop.pool.close(id, loop.stream);
  }
  REQUIRE((is_slow_run() || was_raised));
}

TEST_CASE("a rule that does not fit the plan is refused") {
  const auto backend = make_backend();
  HeadLoop loop(*backend, guarded(0), 27);
  SelectionConfig rule = loop.pool.plan().selection;
  REQUIRE(loop.head.rule().has_guard() == false);
  rule.min_coverage = 0.9F;
  loop.head.set_rule(rule);
  REQUIRE(loop.head.rule().num_rungs() == 4);
  const auto refuses = [&](auto change) {
    SelectionConfig changed = rule;
    change(changed);
    REQUIRE_THROWS_AS(loop.head.set_rule(changed), InvalidArgument);
  };
  refuses([](SelectionConfig& s) { s.max_budget = 161; });
  refuses([](SelectionConfig& s) { s.max_budget = 19; });
  refuses([](SelectionConfig& s) { s.budget = 15; });
  refuses([](SelectionConfig& s) { s.min_coverage = 1.01F; });
  refuses([](SelectionConfig& s) { s.min_coverage = -0.01F; });
  refuses([](SelectionConfig& s) { s.min_coverage = std::nanf(""); });
  refuses([](SelectionConfig& s) { s.hysteresis = 1; });
  refuses([](SelectionConfig& s) { s.hysteresis = -0.1F; });
  refuses([](SelectionConfig& s) { s.sinks = 2; });
  refuses([](SelectionConfig& s) { s.recent_window = 8; });
  REQUIRE(loop.head.rule().min_coverage == 0.9F);
}
