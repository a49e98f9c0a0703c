// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <numeric>
#include <utility>
#include <vector>

#include "spectx/detail/fit.hpp"

namespace spectx::detail {

/// Chooses how many groups of each request stay on the device. Allocates only at construction.
///
/// Groups leave in one order: of the requests with the longest final length, in pages, first; of
/// those the last groups first, each request's in turn (of the longest now first, then of the lower
/// id). So what has to leave now is always a part of what has to leave at the final lengths, and
/// requests that fit to their end fit on the way there; and no request's first groups leave, which
/// hide the transfer of the others, while an equal one's last groups are still there.
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
    limit_ = demand_.limit() - std::exchange(joining_pages_, 0);
    if (most == nullptr && all_can_stay(now)) {
      for (std::size_t i = 0; i < now.size(); ++i) {
        target[i] = now[i].is_parked ? now[i].resident_groups : all;
      }
      limit_to_room(now, target);
      return target;
    }
    const auto allowed = [&](std::size_t i) { return most == nullptr ? all : most[i]; };
    for (std::size_t i = 0; i < now.size(); ++i) {
      const std::int32_t after = now[i].moving_to < 0 ? now[i].resident_groups : now[i].moving_to;
      target[i] = now[i].is_parked ? now[i].resident_groups : std::min(after, allowed(i));
    }
    const bool has_taken = take(now, target);
    if (!fits_on_host(now, target)) {
      for (std::size_t i = 0; i < now.size(); ++i) {
        if (!now[i].is_parked) target[i] = allowed(i);
      }
      take(now, target);
    } else if (!has_taken && most == nullptr) {
      give_back(now, target);
    }
    limit_to_room(now, target);
    return target;
  }

  /// Whether a request that fits beside the others to its end can start now. If not, the next
  /// place() makes room for it.
  bool can_start(std::span<const RequestNeed> now, index_t final_length, const Fit& fit) {
    const index_t at_most = demand_.token_pages(final_length);
    const index_t counted =
        demand_.can_leave(final_length) ? demand_.counted_pages(0, final_length) : at_most;
    const index_t wanted =
        demand_.key_pages(final_length) + fit.leaving * demand_.slot_pages() +
        (demand_.groups() - fit.leaving) * (fit.all_stay ? std::min(counted, at_most) : counted);
    PageDemand::Growth growth(demand_);
    PageDemand::Sum soon(demand_, leave_rows_);  // when the moves under way are done
    index_t room = demand_.limit() - wanted;
    bool is_any_coming = false;  // it must be there before it can leave again
    index_t host = fit.host;
    index_t at_level = -fit.at_level;  // groups on the host that would not have to be there
    for (const RequestNeed& need : now) {
      room -= demand_.held_on_device(need);
      is_any_coming = is_any_coming || need.moving_to > need.resident_groups;
      growth.add(need);
      soon.add(need, need.moving_to < 0 ? need.resident_groups : need.moving_to);
      const index_t pages = demand_.token_pages(need.final_length);
      const index_t offloaded = need.is_parked ? 0 : demand_.groups() - need.resident_groups;
      if (pages == fit.level) at_level += offloaded;
      if (pages < fit.level) host += offloaded * pages;
    }
    if (!demand_.has_host_tier() || now.empty()) return true;
    host += std::max<index_t>(0, at_level) * fit.level;
    if (!fit.all_stay && host > demand_.host_pages()) return false;
    const bool can_stay = fit.all_stay || soon.pages() + wanted <= demand_.limit();
    if (can_stay && !is_any_coming && growth.pages() <= room) return true;
    joining_pages_ = wanted;
    return false;
  }

 private:
  using Targets = std::span<std::int32_t>;

  void sort(std::span<const RequestNeed> now) {
    const auto end = order_.begin() + static_cast<std::ptrdiff_t>(now.size());
    std::iota(order_.begin(), end, std::size_t{0});
    std::sort(order_.begin(), end, [&](std::size_t a, std::size_t b) {
      const index_t a_pages = demand_.token_pages(now[a].final_length);
      const index_t b_pages = demand_.token_pages(now[b].final_length);
      if (a_pages != b_pages) return a_pages > b_pages;
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
    return pages <= limit_;
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
    for (std::size_t begin = 0; begin < order_count_ && pages.pages() > limit_;) {
      const std::size_t end = end_of_equals(now, begin);
      while (pages.pages() > limit_) {
        const std::size_t k = next_place(now, target, begin, end, false);
        if (k == end) break;
        target[order_[k]] -= demand_.unit();
        pages.change(now[order_[k]], -demand_.unit());
        has_taken = true;
      }
      begin = end;
    }
    return has_taken;
  }

  /// Brings groups back, the shortest request's first, while all can stay: for a while, or to the
  /// end of every request.
  void give_back(std::span<const RequestNeed> now, Targets target) const {
    PageDemand::Sum pages = sum(now, target, return_rows_);
    for (std::size_t end = order_count_; end > 0;) {
      std::size_t begin = end - 1;
      while (begin > 0 && final_pages(now, begin - 1) == final_pages(now, begin)) --begin;
      for (std::size_t k = 0; (k = next_place(now, target, begin, end, true)) != end;) {
        pages.change(now[order_[k]], demand_.unit());
        if (pages.pages() > limit_) return;
        target[order_[k]] += demand_.unit();
      }
      end = begin;
    }
  }

  index_t final_pages(std::span<const RequestNeed> now, std::size_t k) const {
    return demand_.token_pages(now[order_[k]].final_length);
  }
  /// The end of the places in the order that have the same final pages as the one at `begin`.
  std::size_t end_of_equals(std::span<const RequestNeed> now, std::size_t begin) const {
    std::size_t end = begin + 1;
    while (end < order_count_ && final_pages(now, end) == final_pages(now, begin)) ++end;
    return end;
  }
  /// The place in [begin, end) of the next to lose a group, or to gain one; `end`: none.
  std::size_t next_place(std::span<const RequestNeed> now, Targets target, std::size_t begin,
                         std::size_t end, bool gains) const {
    std::size_t next = end;
    for (std::size_t k = begin; k < end; ++k) {
      const RequestNeed& need = now[order_[k]];
      const std::int32_t groups = target[order_[k]];
      const bool can =
          gains ? groups < demand_.groups() : groups > 0 && demand_.can_leave(need.final_length);
      if (need.is_parked || !can) continue;
      const bool is_next =
          next == end || (gains ? groups <= target[order_[next]] : groups > target[order_[next]]);
      if (is_next) next = k;
    }
    return next;
  }

  /// Keeps to what can start now: both copies of a moving group exist until the move is done, and
  /// groups that come must not take what the next steps' rows need.
  void limit_to_room(std::span<const RequestNeed> now, Targets target) const {
    index_t room = demand_.device_pages();
    index_t host_room = demand_.host_pages();
    PageDemand::Growth growth(demand_);
    for (std::size_t i = 0; i < now.size(); ++i) {
      room -= demand_.held_on_device(now[i]);
      host_room -= demand_.held_on_host(now[i]);
      growth.add(now[i]);
      if (now[i].moving_to >= 0) target[i] = now[i].moving_to;
    }
    for (std::size_t k = 0; k < order_count_; ++k) {
      const RequestNeed& need = now[order_[k]];
      const index_t leaving = need.resident_groups - target[order_[k]];
      if (leaving <= 0 || need.moving_to >= 0) continue;
      const index_t pages = std::max<index_t>(1, demand_.token_pages(need.length));
      const index_t can = std::min(demand_.slots_in(room), host_room / pages);
      const index_t starts = demand_.whole(std::clamp<index_t>(can, 0, leaving));
      target[order_[k]] = static_cast<std::int32_t>(need.resident_groups - starts);
      room -= starts * demand_.slot_pages();
      host_room -= starts * pages;
    }
    room -= growth.pages() + demand_.limit() - limit_;
    for (std::size_t k = order_count_; k-- > 0;) {
      const RequestNeed& need = now[order_[k]];
      const index_t coming = target[order_[k]] - need.resident_groups;
      if (coming <= 0 || need.moving_to >= 0) continue;
      const index_t pages = std::max<index_t>(1, demand_.token_pages(need.length));
      const index_t starts = demand_.whole(std::clamp<index_t>(room / pages, 0, coming));
      target[order_[k]] = static_cast<std::int32_t>(need.resident_groups + starts);
      room -= starts * pages;
    }
  }

  PageDemand demand_;
  index_t leave_rows_;
  index_t return_rows_;
  index_t limit_ = 0;          // of this call: less than the demand's while someone waits
  index_t joining_pages_ = 0;  // that a request waits for
  std::vector<std::int32_t> target_;
  std::vector<std::size_t> order_;
  std::size_t order_count_ = 0;
};

}  // namespace spectx::detail
