// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "spectx/placement.hpp"
#include "spectx/pool_layout.hpp"

namespace spectx::detail {

/// Pages that requests take of a pool's two tiers: what they hold, and what the planner counts.
///
/// A group on its way out has both copies on the device, its pages and its slots. So a resident
/// group that may have to leave is counted as two blocks of slots at least: when it leaves, its
/// slots fit into what was counted for it, and what it gives back is never less than they are.
///
/// Where a lender has the token pages, those are what is counted: the arena has room for the slots
/// and keys of all requests.
class PageDemand {
 public:
  PageDemand(const PoolPlan& plan, const PoolLayout& layout)
      : groups_(layout.groups),
        unit_(static_cast<std::int32_t>(layout.unit)),
        has_host_tier_(plan.has_host_tier()),
        slot_pages_(plan.lends() ? 0 : layout.slot_pages),
        page_rows_(plan.page_rows),
        key_page_rows_(plan.lends() ? 0 : layout.key_page_rows),
        device_pages_(plan.lends() ? plan.lent_pages : plan.arena_pages),
        host_pages_(plan.host_pages),
        step_pages_(ceil_div(plan.max_step_rows, plan.page_rows)),
        chunk_pages_(layout.groups * ceil_div(2 * plan.max_step_rows, plan.page_rows)),
        chunk_key_pages_(key_pages(2 * plan.max_step_rows)) {}

  index_t groups() const noexcept { return groups_; }
  /// Groups of a request that leave and return together; of `groups` as many as are whole units.
  std::int32_t unit() const noexcept { return unit_; }
  index_t whole(index_t groups) const noexcept { return groups - groups % unit_; }
  index_t slot_pages() const noexcept { return slot_pages_; }
  /// Groups whose slots fit into `pages`.
  index_t slots_in(index_t pages) const noexcept {
    return slot_pages_ == 0 ? groups_ : pages / slot_pages_;
  }
  bool has_host_tier() const noexcept { return has_host_tier_; }
  index_t device_pages() const noexcept { return device_pages_; }
  index_t host_pages() const noexcept { return host_pages_; }
  /// What counted pages may come to: one more block of slots stays free, for the first group that
  /// leaves.
  index_t limit() const noexcept { return device_pages_ - slot_pages_; }

  index_t token_pages(index_t length) const noexcept { return ceil_div(length, page_rows_); }
  index_t key_pages(index_t length) const noexcept {
    return key_page_rows_ == 0 ? 0 : ceil_div(length, key_page_rows_);
  }
  /// A request that never outgrows its slots gains nothing by leaving.
  bool can_leave(index_t final_length) const noexcept {
    return has_host_tier() && token_pages(final_length) > slot_pages_;
  }
  /// Pages counted for one resident group at `length`.
  index_t counted_pages(index_t length, index_t final_length) const noexcept {
    const index_t pages = token_pages(length);
    return can_leave(final_length)
               ? std::max(pages, slot_pages_ + std::max(slot_pages_, step_pages_))
               : pages;
  }
  /// What one group gives back, as counted, when it leaves.
  index_t relief(index_t length, index_t final_length) const noexcept {
    return counted_pages(length, final_length) - slot_pages_;
  }

  /// Counted pages of everything that requests may need while each grows by `ahead` rows (not past
  /// its final length) and prompts by two steps' rows on top.
  class Sum {
   public:
    Sum(const PageDemand& demand, index_t ahead) : demand_(&demand), ahead_(ahead) {}

    void add(const RequestNeed& need, index_t resident) noexcept {
      const PageDemand& d = *demand_;
      if (need.is_parked) {
        sure_ += d.key_pages(need.length);
        return;
      }
      const index_t soon = d.length_after(need, ahead_);
      sure_ += (d.groups_ - resident) * d.slot_pages_ + d.key_pages(soon);
      key_room_ += d.key_pages(need.final_length) - d.key_pages(soon);
      move(need, resident);
    }
    /// `groups` more groups of a request that was added become resident, or fewer.
    void change(const RequestNeed& need, index_t groups) noexcept {
      sure_ -= groups * demand_->slot_pages_;
      move(need, groups);
    }
    index_t pages() const noexcept {
      return sure_ + std::min(room_, demand_->chunk_pages_) +
             std::min(key_room_, demand_->chunk_key_pages_);
    }

   private:
    void move(const RequestNeed& need, index_t groups) noexcept {
      const PageDemand& d = *demand_;
      const index_t counted = d.counted_pages(d.length_after(need, ahead_), need.final_length);
      sure_ += groups * counted;
      room_ += groups * (d.counted_pages(need.final_length, need.final_length) - counted);
    }

    const PageDemand* demand_;
    index_t ahead_;
    index_t sure_ = 0;
    index_t room_ = 0;      // token pages that requests may still grow by
    index_t key_room_ = 0;  // the same for key pages
  };

  /// Pages that requests may take in their next steps, where they are now.
  class Growth {
   public:
    explicit Growth(const PageDemand& demand) : demand_(&demand) {}

    void add(const RequestNeed& need) noexcept {
      if (need.is_parked) return;
      const PageDemand& d = *demand_;
      const index_t keys = d.key_pages(need.final_length) - d.key_pages(need.length);
      const index_t pages = d.token_pages(need.final_length) - d.token_pages(need.length);
      room_ += keys + need.resident_groups * pages;
      rows_ += need.resident_groups + 1;
    }
    index_t pages() const noexcept {
      return std::min(room_, demand_->chunk_pages_ + demand_->chunk_key_pages_ + rows_);
    }

   private:
    const PageDemand* demand_;
    index_t room_ = 0;
    index_t rows_ = 0;  // a page in every group and one of keys
  };

  index_t length_after(const RequestNeed& need, index_t ahead) const noexcept {
    return std::min(need.final_length, need.length + ahead);
  }

  /// Pages held now; by a group that is moving twice.
  index_t held_on_device(const RequestNeed& need) const noexcept {
    return held_rows(need) + held_slots(need) * slot_pages_ + key_pages(need.length);
  }
  index_t held_rows(const RequestNeed& need) const noexcept {
    return need.is_parked ? 0 : (need.resident_groups + coming(need)) * token_pages(need.length);
  }
  /// Groups that have slots.
  index_t held_slots(const RequestNeed& need) const noexcept {
    return need.is_parked ? 0 : groups_ - need.resident_groups + leaving(need);
  }
  index_t held_on_host(const RequestNeed& need) const noexcept {
    if (!has_host_tier()) return 0;
    const index_t resident = need.is_parked ? 0 : need.resident_groups - leaving(need);
    return (groups_ - resident) * token_pages(need.length);
  }

 private:
  static index_t coming(const RequestNeed& need) noexcept {
    return std::max(0, need.moving_to - need.resident_groups);
  }
  static index_t leaving(const RequestNeed& need) noexcept {
    return need.moving_to < 0 ? 0 : std::max(0, need.resident_groups - need.moving_to);
  }

  index_t groups_;
  std::int32_t unit_;
  bool has_host_tier_;
  index_t slot_pages_;  // counted for a group's slots
  index_t page_rows_;
  index_t key_page_rows_;
  index_t device_pages_;
  index_t host_pages_;
  index_t step_pages_;       // one step's rows, in one group
  index_t chunk_pages_;      // two steps' rows, in every group
  index_t chunk_key_pages_;  // the same for the head's keys
};

}  // namespace spectx::detail
