// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <numeric>
#include <vector>

#include "spectx/detail/page_demand.hpp"

namespace spectx::detail {

/// Calls f for every request, `more` last.
template <class F>
void for_each_need(std::span<const RequestNeed> now, const RequestNeed* more, F&& f) {
  for (const RequestNeed& need : now) f(need);
  if (more != nullptr) f(*more);
}

/// Whether requests can all run to their final lengths: with everything resident, or with groups
/// leaving in the order of Placer. Parked requests stay parked.
inline bool fits_to_the_end(const PageDemand& demand, std::span<const RequestNeed> now,
                            const RequestNeed* more = nullptr) {
  index_t resident = 0;  // pages with every group on the device
  index_t counted = 0;
  index_t host = 0;
  for_each_need(now, more, [&](const RequestNeed& need) {
    const index_t keys = demand.key_pages(need.final_length);
    resident += keys;
    counted += keys;
    if (need.is_parked) {
      host += demand.groups() * demand.token_pages(need.final_length);
    } else {
      resident += demand.groups() * demand.token_pages(need.final_length);
      counted += demand.groups() * demand.counted_pages(need.final_length, need.final_length);
    }
  });
  if (host > demand.host_pages()) return false;
  if (resident <= demand.limit()) return true;

  // From the longest down, one length in pages after the other: equal ones may leave in any order.
  for (index_t level = std::numeric_limits<index_t>::max(); counted > demand.limit();) {
    index_t pages = 0;  // the longest below `level`
    index_t length = 0;
    index_t groups = 0;
    for_each_need(now, more, [&](const RequestNeed& need) {
      const index_t n = demand.token_pages(need.final_length);
      if (need.is_parked || n >= level || n < pages || !demand.can_leave(need.final_length)) return;
      groups = (n > pages ? 0 : groups) + demand.groups();
      pages = n;
      length = need.final_length;
    });
    if (groups == 0) return false;
    const index_t relief = demand.relief(length, length);
    const index_t leaving = std::min(groups, ceil_div(counted - demand.limit(), relief));
    counted -= leaving * relief;
    host += leaving * pages;
    level = pages;
  }
  return host <= demand.host_pages();
}

/// Chooses how many groups of each request stay on the device. Allocates only at construction.
///
/// Groups leave in one order: of the request with the longest final length first (then the longest
/// now, then the lower id), last group first. So what has to leave now is always a part of what has
/// to leave at the final lengths, and requests that fit to their end fit on the way there.
class Placer {
 public:
  /// A group leaves when requests would not fit after this many pages of growth each.
  static constexpr index_t kLeavePages = 2;
  /// A group comes back only when all would still fit after this many rows of growth each.
  static constexpr index_t kReturnRows = 1024;

  Placer(const PageDemand& demand, const PoolPlan& plan)
      : demand_(demand),
        leave_rows_(kLeavePages * plan.page_rows),
        return_rows_(std::max(kReturnRows, 2 * leave_rows_)),
        target_(static_cast<std::size_t>(plan.max_requests)),
        order_(static_cast<std::size_t>(plan.max_requests)) {}

  /// @param most  resident groups that the caller allows each request; null: all of them, and
  ///              groups may come back
  std::span<const std::int32_t> place(std::span<const RequestNeed> now, const std::int32_t* most) {
    const std::span<std::int32_t> target(target_.data(), now.size());
    const auto all = static_cast<std::int32_t>(demand_.groups());
    if (!demand_.has_host_tier()) {
      std::fill(target.begin(), target.end(), all);
      return target;
    }
    sort(now);
    if (most == nullptr && all_can_stay(now)) {
      for (std::size_t i = 0; i < now.size(); ++i) {
        target[i] = now[i].is_parked ? now[i].resident_groups : all;
      }
      limit_to_room(now, target);
      return target;
    }
    for (std::size_t i = 0; i < now.size(); ++i) {
      const std::int32_t resident = now[i].resident_groups;
      target[i] = most == nullptr || now[i].is_parked ? resident : std::min(resident, most[i]);
    }
    const bool has_taken = take(now, target);
    if (!fits_on_host(now, target)) {
      for (std::size_t i = 0; i < now.size(); ++i) {
        if (!now[i].is_parked) target[i] = most == nullptr ? all : most[i];
      }
      take(now, target);
    } else if (!has_taken && most == nullptr) {
      give_back(now, target);
    }
    limit_to_room(now, target);
    return target;
  }

 private:
  using Targets = std::span<std::int32_t>;

  void sort(std::span<const RequestNeed> now) {
    const auto end = order_.begin() + static_cast<std::ptrdiff_t>(now.size());
    std::iota(order_.begin(), end, std::size_t{0});
    std::sort(order_.begin(), end, [&](std::size_t a, std::size_t b) {
      if (now[a].final_length != now[b].final_length) {
        return now[a].final_length > now[b].final_length;
      }
      if (now[a].length != now[b].length) return now[a].length > now[b].length;
      return now[a].request.value < now[b].request.value;
    });
    order_count_ = now.size();
  }

  PageDemand::Sum sum(std::span<const RequestNeed> now, Targets target, index_t ahead) const {
    PageDemand::Sum sum(demand_, ahead);
    for (std::size_t i = 0; i < now.size(); ++i) sum.add(now[i], target[i]);
    return sum;
  }

  /// Whether everything fits on the device at the final lengths.
  bool all_can_stay(std::span<const RequestNeed> now) const {
    index_t pages = 0;
    for (const RequestNeed& need : now) {
      pages += demand_.key_pages(need.final_length);
      if (!need.is_parked) pages += demand_.groups() * demand_.token_pages(need.final_length);
    }
    return pages <= demand_.limit();
  }

  /// Host pages at the final lengths.
  bool fits_on_host(std::span<const RequestNeed> now, Targets target) const {
    index_t pages = 0;
    for (std::size_t i = 0; i < now.size(); ++i) {
      const index_t offloaded = demand_.groups() - (now[i].is_parked ? 0 : target[i]);
      pages += offloaded * demand_.token_pages(now[i].final_length);
    }
    return pages <= demand_.host_pages();
  }

  /// Takes groups off the device until the rest fits; whether any was taken.
  bool take(std::span<const RequestNeed> now, Targets target) const {
    PageDemand::Sum pages = sum(now, target, leave_rows_);
    bool has_taken = false;
    for (std::size_t k = 0; k < order_count_ && pages.pages() > demand_.limit(); ++k) {
      const std::size_t i = order_[k];
      if (now[i].is_parked || !demand_.can_leave(now[i].final_length)) continue;
      for (; target[i] > 0 && pages.pages() > demand_.limit(); --target[i]) {
        pages.change(now[i], -1);
        has_taken = true;
      }
    }
    return has_taken;
  }

  /// Brings groups back, the shortest request's first, while all can stay.
  void give_back(std::span<const RequestNeed> now, Targets target) const {
    PageDemand::Sum pages = sum(now, target, return_rows_);
    for (std::size_t k = order_count_; k-- > 0;) {
      const std::size_t i = order_[k];
      if (now[i].is_parked) continue;
      for (; target[i] < demand_.groups(); ++target[i]) {
        pages.change(now[i], 1);
        if (pages.pages() > demand_.limit()) return;
      }
    }
  }

  /// Keeps to what can start now: both copies of a moving group exist until the move is done, and
  /// groups that come must not take what the next step's rows need.
  void limit_to_room(std::span<const RequestNeed> now, Targets target) const {
    index_t room = demand_.device_pages();
    index_t host_room = demand_.host_pages();
    PageDemand::Growth growth(demand_);
    for (const RequestNeed& need : now) {
      room -= demand_.held_on_device(need);
      host_room -= demand_.held_on_host(need);
      growth.add(need);
    }
    for (std::size_t k = 0; k < order_count_; ++k) {
      const std::size_t i = order_[k];
      const index_t leaving = now[i].resident_groups - target[i];
      if (leaving <= 0) continue;
      const index_t pages = std::max<index_t>(1, demand_.token_pages(now[i].length));
      const index_t can = std::min(room / demand_.slot_pages(), host_room / pages);
      const index_t starts = std::clamp<index_t>(can, 0, leaving);
      target[i] = static_cast<std::int32_t>(now[i].resident_groups - starts);
      room -= starts * demand_.slot_pages();
      host_room -= starts * pages;
    }
    room -= growth.pages();
    for (std::size_t k = order_count_; k-- > 0;) {
      const std::size_t i = order_[k];
      const index_t coming = target[i] - now[i].resident_groups;
      if (coming <= 0) continue;
      const index_t pages = std::max<index_t>(1, demand_.token_pages(now[i].length));
      const index_t starts = std::clamp<index_t>(room / pages, 0, coming);
      target[i] = static_cast<std::int32_t>(now[i].resident_groups + starts);
      room -= starts * pages;
    }
  }

  PageDemand demand_;
  index_t leave_rows_;
  index_t return_rows_;
  std::vector<std::int32_t> target_;
  std::vector<std::size_t> order_;
  std::size_t order_count_ = 0;
};

}  // namespace spectx::detail
