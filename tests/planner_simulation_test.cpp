// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "support/planner_cases.hpp"

using namespace spectx;

namespace {

/// A pool of pages without rows: what requests hold while groups move, by KVPool's rules.
class PagePool {
 public:
  struct Request {
    RequestNeed need;
    std::int32_t target = -1;  // of the move under way
    index_t moved_pages = 0;   // that each moving group holds beside the current ones
    int steps_left = 0;        // until its copy is done
    int changes = 1;           // requests that joined or left since it joined, itself included
    int turns = 0;             // moves that went the other way than the one before
    int last_direction = 0;
  };

  PagePool(MemoryPlanner& planner, std::mt19937& random)
      : planner_(planner), layout_(planner.layout()), random_(random) {}

  std::vector<RequestNeed> needs() const {
    std::vector<RequestNeed> all;
    for (const Request& r : requests) {
      all.push_back(r.need);
      all.back().moving_to = r.target;
    }
    return all;
  }

  index_t device_pages() const {
    index_t pages = 0;
    for (const Request& r : requests) {
      pages += r.need.resident_groups * token_pages(r.need.length) +
               (layout_.groups - r.need.resident_groups) * layout_.slot_pages +
               ceil_div(r.need.length, layout_.key_page_rows);
      if (r.target >= 0) pages += std::abs(r.target - r.need.resident_groups) * r.moved_pages;
    }
    return pages;
  }
  index_t host_pages() const {
    index_t pages = 0;
    for (const Request& r : requests) {
      const std::int32_t resident =
          r.target < 0 ? r.need.resident_groups : std::min(r.target, r.need.resident_groups);
      pages += (layout_.groups - resident) * token_pages(r.need.length);
    }
    return pages;
  }

  /// Starts what the placement asks for and there is room for.
  void apply(const Placement& placement) {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      Request& r = requests[i];
      const std::int32_t to = placement.resident_groups[i];
      const std::int32_t from = r.need.resident_groups;
      if (r.target >= 0 || to == from) continue;
      const bool is_leaving = to < from;
      const index_t pages = is_leaving ? layout_.slot_pages : token_pages(r.need.length);
      if (device_pages() + std::abs(to - from) * pages > planner_.pool_plan().arena_pages) continue;
      r.target = to;
      r.moved_pages = pages;
      r.steps_left = r.need.length == 0 ? 0 : 1 + static_cast<int>(random_() % 3);
      const int direction = is_leaving ? -1 : 1;
      r.turns += direction == -r.last_direction ? 1 : 0;
      r.last_direction = direction;
    }
    settle(/*wait=*/false);
  }

  void settle(bool wait) {
    for (Request& r : requests) {
      if (r.target < 0 || (!wait && r.steps_left-- > 0)) continue;
      const index_t more =
          r.target > r.need.resident_groups
              ? (r.target - r.need.resident_groups) * (token_pages(r.need.length) - r.moved_pages)
              : 0;
      const bool has_room = device_pages() + more <= planner_.pool_plan().arena_pages;
      if (has_room) r.need.resident_groups = r.target;
      r.target = -1;
    }
  }

  /// One step: `rows` for each request. False: out of memory even after waiting for the moves.
  bool step(const std::vector<index_t>& rows) {
    for (std::size_t i = 0; i < rows.size(); ++i) requests[i].need.length += rows[i];
    if (is_full()) {
      for (std::size_t i = 0; i < rows.size(); ++i) requests[i].need.length -= rows[i];
      settle(/*wait=*/true);
      for (std::size_t i = 0; i < rows.size(); ++i) requests[i].need.length += rows[i];
    }
    return !is_full();
  }

  void note_change() {
    for (Request& r : requests) ++r.changes;
  }

  std::vector<Request> requests;

 private:
  index_t token_pages(index_t length) const {
    return ceil_div(length, planner_.pool_plan().page_rows);
  }
  bool is_full() const {
    return device_pages() > planner_.pool_plan().arena_pages ||
           host_pages() > planner_.pool_plan().host_pages;
  }

  MemoryPlanner& planner_;
  PoolLayout layout_;
  std::mt19937& random_;
};

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
    if (!pool.step(rows)) {
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
