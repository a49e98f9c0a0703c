// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "support/page_pool.hpp"
#include "support/planner_cases.hpp"

using namespace spectx;
using test::PagePool;

namespace {

/// Requests come, are prefilled in chunks, decode and leave; whoever is admitted never runs out.
struct Outcome {
  int finished = 0;
  int ran_out = 0;
  int most_spare_turns = 0;  // turns of a request beyond what joined or left beside it
};

Outcome simulate(MemoryPlanner& planner, std::uint32_t seed, int steps) {
  std::mt19937 random(seed);
  PagePool pool(planner, random);
  const PoolPlan& plan = planner.pool_plan();
  Outcome outcome;
  index_t waiting = 0;  // final length of the next request
  for (int n = 0; n < steps; ++n) {
    if (waiting == 0 && random() % 8 == 0) {
      waiting = 1 + static_cast<index_t>(random()) % plan.max_length;
    }
    if (waiting > 0 && planner.admit(pool.needs(), waiting) == Admission::now) {
      pool.note_change();
      PagePool::Request r;
      std::int32_t id = 0;
      while (std::any_of(pool.requests.begin(), pool.requests.end(),
                         [&](const auto& other) { return other.need.request.value == id; })) {
        ++id;
      }
      r.need = {.request = {id},
                .length = 0,
                .final_length = std::exchange(waiting, 0),
                .resident_groups = static_cast<std::int32_t>(planner.layout().groups)};
      pool.requests.push_back(r);
    }
    const std::vector<RequestNeed> needs = pool.needs();
    pool.apply(planner.place(needs));

    std::vector<index_t> rows;
    index_t left = plan.max_step_rows;
    for (const auto& r : pool.requests) {
      const bool is_prompt = r.need.length < r.need.final_length / 2;
      rows.push_back(std::min(
          {is_prompt ? plan.max_step_rows : 1, left, r.need.final_length - r.need.length}));
      left -= rows.back();
    }
    if (!pool.step(rows) || pool.is_torn) {
      ++outcome.ran_out;
      return outcome;
    }
    for (const auto& r : pool.requests) {
      outcome.most_spare_turns = std::max(outcome.most_spare_turns, r.turns - r.changes);
    }
    const auto done = static_cast<int>(std::erase_if(
        pool.requests, [](const auto& r) { return r.need.length == r.need.final_length; }));
    for (int i = 0; i < done; ++i) pool.note_change();
    outcome.finished += done;
  }
  return outcome;
}

}  // namespace

TEST_CASE("requests that were admitted run to their end while groups move") {
  const ModelShape shape = test::planner_shape();
  const index_t arena = GENERATE(16, 18, 28, 43, 68, 108, 218);
  const index_t host = GENERATE(48, 60, 100, 192);
  for (std::uint32_t seed = 1; seed <= 8; ++seed) {
    CAPTURE(arena, host, seed);
    MemoryPlanner planner(shape, test::planner_config(shape, arena, host));
    const Outcome outcome = simulate(planner, seed, 2000);
    CHECK(outcome.ran_out == 0);
    CHECK(outcome.finished > 5);
    CHECK(outcome.most_spare_turns <= 0);
  }
}

TEST_CASE("and so they do in a host engine's pages") {
  const ModelShape shape = test::planner_shape();
  const bool moves_whole_requests = GENERATE(false, true);
  const index_t lent = GENERATE(3, 12, 18, 27, 42, 69, 108, 192);
  const index_t host = GENERATE(48, 60, 100, 192);
  for (std::uint32_t seed = 1; seed <= 8; ++seed) {
    CAPTURE(moves_whole_requests, lent, host, seed);
    PlannerConfig config = test::planner_config(shape, /*arena_pages=*/100, host);
    const index_t page_bytes =
        PoolLayout(shape, MemoryPlanner(shape, config).pool_plan()).page_bytes;
    config.lent_bytes = lent * page_bytes;
    config.device_bytes += config.lent_bytes;
    config.lends_whole_requests = moves_whole_requests;
    MemoryPlanner planner(shape, config);
    REQUIRE(planner.pool_plan().lent_pages == lent);
    const Outcome outcome = simulate(planner, seed, 2000);
    CHECK(outcome.ran_out == 0);
    CHECK(outcome.finished > 5);
    CHECK(outcome.most_spare_turns <= 0);
  }
}

TEST_CASE("the planner places requests as a whole where blocks have all groups") {
  PlannerConfig config = test::llama_config();
  config.model = GENERATE(PlannerModel::exact, PlannerModel::paper, PlannerModel::paper_corrected);
  config.lent_bytes = index_t{20} << 30;
  config.lends_whole_requests = true;
  MemoryPlanner planner(test::llama_shape(), config);
  std::vector<RequestNeed> needs;
  for (int i = 0; i < 16; ++i) needs.push_back(test::need(i, 0, 34'000, 8));
  int away = 0;
  for (index_t length = 500; length < 34'000; length += 500) {
    for (RequestNeed& n : needs) n.length = length;
    const Placement to = planner.place(needs);
    for (std::size_t i = 0; i < needs.size(); ++i) {
      REQUIRE(to.resident_groups[i] % 8 == 0);
      needs[i].resident_groups = to.resident_groups[i];
      away += to.resident_groups[i] == 0 ? 1 : 0;
    }
    REQUIRE(planner.predict(needs).lent_rows <= config.lent_bytes);
  }
  REQUIRE(away > 0);
}
