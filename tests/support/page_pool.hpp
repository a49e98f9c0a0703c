// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "spectx/memory_planner.hpp"

namespace spectx::test {

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

  /// Of the arena, and of a lender where there is one.
  index_t device_pages() const { return own_pages() + (plan().lends() ? 0 : resident_pages()); }
  index_t resident_pages() const {
    index_t pages = 0;
    for (const Request& r : requests) {
      pages += r.need.resident_groups * token_pages(r.need.length);
      if (r.target > r.need.resident_groups) {
        pages += (r.target - r.need.resident_groups) * r.moved_pages;
      }
    }
    return pages;
  }
  index_t own_pages() const {
    index_t pages = 0;
    for (const Request& r : requests) {
      pages += (layout_.groups - r.need.resident_groups) * layout_.slot_pages +
               ceil_div(r.need.length, layout_.key_page_rows);
      if (r.target >= 0 && r.target < r.need.resident_groups) {
        pages += (r.need.resident_groups - r.target) * r.moved_pages;
      }
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
      if (!has_room(is_leaving, std::abs(to - from) * pages)) continue;
      is_torn = is_torn || (to % layout_.unit != 0);
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
      if (has_room(/*for_slots=*/false, more)) r.need.resident_groups = r.target;
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
  bool is_torn = false;  // a move of some groups where all have to move

 private:
  const PoolPlan& plan() const { return planner_.pool_plan(); }
  bool has_room(bool for_slots, index_t more) const {
    if (!plan().lends() || for_slots) return device_pages() + more <= plan().arena_pages;
    return resident_pages() + more <= plan().lent_pages;
  }
  index_t token_pages(index_t length) const { return ceil_div(length, plan().page_rows); }
  bool is_full() const {
    return device_pages() > plan().arena_pages || host_pages() > plan().host_pages ||
           (plan().lends() && resident_pages() > plan().lent_pages);
  }

  MemoryPlanner& planner_;
  PoolLayout layout_;
  std::mt19937& random_;
};

}  // namespace spectx::test
