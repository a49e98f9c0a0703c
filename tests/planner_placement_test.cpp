// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "catch.hpp"
#include "support/planner_cases.hpp"

using namespace spectx;
using test::need;
using Needs = std::vector<RequestNeed>;

namespace {

constexpr index_t kGroups = 3;
constexpr index_t kSlotPages = 2;
constexpr index_t kStepPages = 2;

MemoryPlanner planner_for(index_t arena, index_t host) {
  return {test::planner_shape(), test::planner_config(test::planner_shape(), arena, host)};
}
index_t pages(index_t length) { return (length + 15) / 16; }

/// Carries out what the planner asks, at once, until it asks for nothing more.
int settle(MemoryPlanner& planner, Needs& needs) {
  for (int moves = 0; moves < 100; ++moves) {
    const Placement to = planner.place(needs);
    bool is_same = true;
    for (std::size_t i = 0; i < needs.size(); ++i) {
      is_same = is_same && to.resident_groups[i] == needs[i].resident_groups;
      needs[i].resident_groups = to.resident_groups[i];
    }
    if (is_same) return moves;
  }
  FAIL("the planner never comes to rest");
  return 0;
}

/// Whether requests at their final lengths fit with the first `leaving` groups of the order gone;
/// by the rules of docs/memory_planner.md, written down once more.
bool prefix_fits(const Needs& needs, index_t leaving, index_t arena, index_t host) {
  std::vector<std::size_t> order(needs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return needs[a].final_length > needs[b].final_length;
  });
  index_t device = 0;
  index_t on_host = 0;
  for (const std::size_t i : order) {
    const index_t n = pages(needs[i].final_length);
    const bool can_leave = n > kSlotPages;
    const index_t gone = can_leave ? std::min(leaving, kGroups) : 0;
    leaving -= gone;
    const index_t counted =
        can_leave ? std::max(n, kSlotPages + std::max(kSlotPages, kStepPages)) : n;
    device += (kGroups - gone) * counted + gone * kSlotPages + 1;
    on_host += gone * n;
  }
  return leaving == 0 && device <= arena - kSlotPages && on_host <= host;
}

/// The fewest groups that have to leave at the final lengths; -1: it cannot be.
index_t fewest_leaving(const Needs& needs, index_t arena, index_t host) {
  index_t all = static_cast<index_t>(needs.size());  // a page of keys each
  for (const RequestNeed& n : needs) all += kGroups * pages(n.final_length);
  if (all <= arena - kSlotPages) return 0;
  for (index_t k = 0; k <= kGroups * static_cast<index_t>(needs.size()); ++k) {
    if (prefix_fits(needs, k, arena, host)) return k;
  }
  return -1;
}

}  // namespace

TEST_CASE("place and fits against every prefix of the order") {
  std::mt19937 random(11);
  int feasible = 0;
  for (int n = 0; n < 4000; ++n) {
    const index_t arena = 16 + static_cast<index_t>(random() % 120);
    const index_t host = 48 + static_cast<index_t>(random() % 100);
    MemoryPlanner planner = planner_for(arena, host);
    Needs needs;
    for (std::int32_t i = 0; i < 1 + static_cast<std::int32_t>(random() % 4); ++i) {
      const index_t length = 1 + static_cast<index_t>(random() % 256);
      needs.push_back(need(i, length, length, 0));  // at its end, everything on the host
    }
    const index_t fewest = fewest_leaving(needs, arena, host);
    CAPTURE(n, arena, host, fewest);
    REQUIRE(planner.fits(needs) == (fewest >= 0));
    index_t on_host = 0;
    for (const RequestNeed& r : needs) on_host += kGroups * pages(r.length);
    if (fewest < 0 || on_host > host) continue;
    ++feasible;
    settle(planner, needs);
    const MemoryUse use = planner.predict(needs);
    REQUIRE(use.arena_used() <= use.arena);
    REQUIRE(use.host_rows <= use.host_cap);
    index_t offloaded = 0;
    for (const RequestNeed& r : needs) {
      if (pages(r.length) > kSlotPages) offloaded += kGroups - r.resident_groups;
    }
    // Short of the best by no more than what has to stay free for groups on their way back.
    REQUIRE(offloaded >= fewest);
    if (fewest == kGroups * static_cast<index_t>(needs.size())) REQUIRE(offloaded == fewest);
  }
  REQUIRE(feasible > 500);
}

TEST_CASE("a request that grows loses one group after the other, the last first, and no more") {
  MemoryPlanner planner = planner_for(28, 100);
  Needs needs{need(0, 0, 256, kGroups)};
  std::vector<index_t> left_at;
  for (index_t length = 1; length <= 256; ++length) {
    needs[0].length = length;
    const std::int32_t before = needs[0].resident_groups;
    settle(planner, needs);
    REQUIRE(needs[0].resident_groups <= before);
    if (needs[0].resident_groups < before) left_at.push_back(length);
    const MemoryUse use = planner.predict(needs);
    REQUIRE(use.arena_used() <= use.arena);
  }
  REQUIRE(left_at.size() == 2);
  const auto s = planner.thresholds(1);
  CHECK(left_at[0] <= s[0]);  // early, so that the move is done when the memory is full
  CHECK(left_at[1] <= s[1]);
  CHECK(s[2] == 256);
}

TEST_CASE("groups come back when others leave, once, and stay") {
  MemoryPlanner planner = planner_for(68, 200);
  Needs needs{need(0, 200, 256, kGroups), need(1, 100, 256, kGroups), need(2, 100, 120, kGroups)};
  needs[0].resident_groups = needs[1].resident_groups = 0;
  settle(planner, needs);
  const std::int32_t with_others = needs[0].resident_groups;
  REQUIRE(with_others < kGroups);
  needs.resize(1);
  CHECK(settle(planner, needs) > 0);
  CHECK(needs[0].resident_groups == kGroups);
  for (index_t length = 200; length <= 256; ++length) {
    needs[0].length = length;
    CHECK(settle(planner, needs) == 0);
  }
}

TEST_CASE("the longest leaves first, ties by the lower id; short requests never leave") {
  MemoryPlanner planner = planner_for(68, 200);
  Needs needs{need(3, 180, 256, kGroups), need(1, 180, 256, kGroups), need(0, 30, 32, kGroups)};
  needs[0].length = needs[1].length = 130;
  const Placement first = planner.place(needs);
  CHECK(first.resident_groups[1] < kGroups);
  CHECK(first.resident_groups[0] >= first.resident_groups[1]);
  CHECK(first.resident_groups[2] == kGroups);
  const std::vector<std::int32_t> once(first.resident_groups.begin(), first.resident_groups.end());
  const Placement again = planner.place(needs);
  CHECK(std::equal(once.begin(), once.end(), again.resident_groups.begin()));
}

TEST_CASE("equal requests lose their last groups in turn, and gain them back likewise") {
  MemoryPlanner planner = planner_for(150, 300);
  Needs needs;
  for (std::int32_t i = 0; i < 4; ++i) needs.push_back(need(i, 250, 256, kGroups));
  const auto spread = [&] {
    const auto [least, most] = std::minmax_element(
        needs.begin(), needs.end(),
        [](const auto& a, const auto& b) { return a.resident_groups < b.resident_groups; });
    return most->resident_groups - least->resident_groups;
  };
  for (RequestNeed& n : needs) n.resident_groups = 0;
  settle(planner, needs);
  CHECK(spread() <= 1);
  const std::int32_t with_four = needs[3].resident_groups;
  CHECK(with_four < kGroups);
  needs.pop_back();
  settle(planner, needs);
  CHECK(spread() <= 1);
  CHECK(needs[0].resident_groups > with_four);
}

TEST_CASE("a move under way is left alone") {
  MemoryPlanner planner = planner_for(38, 100);
  Needs needs{need(0, 30, 256, kGroups)};
  needs[0].moving_to = 1;
  CHECK(planner.place(needs).resident_groups[0] == 1);
  needs[0].resident_groups = 0;
  needs[0].moving_to = 2;
  CHECK(planner.place(needs).resident_groups[0] == 2);
}
