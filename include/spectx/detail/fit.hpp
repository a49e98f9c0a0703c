// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>

#include "spectx/detail/page_demand.hpp"

namespace spectx::detail {

/// Calls f for every request, `more` last.
template <class F>
void for_each_need(std::span<const RequestNeed> now, const RequestNeed* more, F&& f) {
  for (const RequestNeed& need : now) f(need);
  if (more != nullptr) f(*more);
}

struct Fit {
  bool is_possible = false;
  bool all_stay = false;  // nothing has to leave
  index_t leaving = 0;    // groups of the last request that have to leave
  index_t host = 0;       // pages
  index_t level = 0;      // groups of requests that end shorter than so many pages stay,
  index_t at_level = 0;   // and all but so many of those that end there
};

/// Whether requests can all run to their final lengths: with everything resident, or with groups
/// leaving in the order of Placer. Parked requests stay parked.
inline Fit fit_to_the_end(const PageDemand& demand, std::span<const RequestNeed> now,
                          const RequestNeed* more = nullptr) {
  index_t resident = 0;  // pages with every group on the device
  index_t counted = 0;
  index_t host = 0;
  for_each_need(now, more, [&](const RequestNeed& need) {
    const index_t keys = demand.key_pages(need.final_length);
    const index_t pages = demand.groups() * demand.token_pages(need.final_length);
    resident += keys + (need.is_parked ? 0 : pages);
    counted += keys;
    if (!need.is_parked) {
      counted += demand.groups() * demand.counted_pages(need.final_length, need.final_length);
    }
    host += need.is_parked ? pages : 0;
  });
  if (host > demand.host_pages()) return {};
  if (resident <= demand.limit()) return {.is_possible = true, .all_stay = true};

  // From the longest down, one length in pages after the other: equal ones may leave in any order.
  Fit fit;
  for (index_t level = std::numeric_limits<index_t>::max(); counted > demand.limit();) {
    index_t pages = 0;  // the longest below `level`
    index_t length = 0;
    index_t groups = 0;
    index_t before = 0;  // of those, ahead of `more`
    for_each_need(now, more, [&](const RequestNeed& need) {
      const index_t n = demand.token_pages(need.final_length);
      if (need.is_parked || n >= level || n < pages || !demand.can_leave(need.final_length)) return;
      if (n > pages) groups = before = 0;
      pages = n;
      length = need.final_length;
      groups += demand.groups();
      const bool is_ahead = more != nullptr && &need != more && length >= more->final_length;
      before += is_ahead ? demand.groups() : 0;
    });
    if (groups == 0) return {};
    const index_t relief = demand.relief(length, length);
    const index_t units = ceil_div(counted - demand.limit(), relief * demand.unit());
    const index_t leaving = std::min(groups, units * demand.unit());
    counted -= leaving * relief;
    host += leaving * pages;
    level = pages;
    fit.level = level;
    fit.at_level = leaving;
    if (more != nullptr && demand.token_pages(more->final_length) == pages) {
      fit.leaving = std::clamp<index_t>(leaving - before, 0, demand.groups());
    }
  }
  fit.host = host;
  fit.is_possible = host <= demand.host_pages();
  return fit;
}

}  // namespace spectx::detail
