// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "spectx/types.hpp"

namespace spectx {

/// How a step read its rows.
enum class Path : std::uint8_t { dense, selected_resident, selected_offloaded, mixed };

constexpr const char* path_name(Path path) noexcept {
  switch (path) {
    case Path::dense:
      return "dense";
    case Path::selected_resident:
      return "selected_resident";
    case Path::selected_offloaded:
      return "selected_offloaded";
    case Path::mixed:
      break;
  }
  return "mixed";
}

/// Of one group of layers.
struct GroupTimes {
  index_t group = 0;
  double transfer_us = 0;  // its misses, from the host tier
  double exposed_us = 0;   // what the compute stream waited for them
};

/// What one step moved and waited for. Rows are counted once for each KV head of the items that
/// select in requests with offloaded groups. Times are the device's own.
struct StepReport {
  Path path = Path::dense;
  index_t step = -1;       // steps ended before it; -1: none has arrived
  bool is_lossy = false;   // a row that it read may have been in a host tier of a smaller type
  index_t hits = 0;        // selected rows that were in a slot
  index_t misses = 0;      // selected rows that were fetched
  index_t bytes = 0;       // fetched, all groups
  double step_us = 0;      // begin_step to end_step on the compute stream; 0: no host tier
  double transfer_us = 0;  // all groups' transfers
  double exposed_us = 0;   // what the compute stream waited for them
  double floor_us = 0;     // least wait possible: max over groups of (transfers up to it - compute
                           // before it)
  std::span<const GroupTimes> groups{};  // from the first that is offloaded; of the last report
  // Of the items that select:
  double mean_budget = 0;     // rows that a KV head read; 0: no item selects
  index_t guard_raised = 0;   // items that read more than the budget, enough
  index_t guard_full = 0;     // that read everything, for max_budget was too little
  index_t guard_limited = 0;  // that read max_budget, though it was too little
};

}  // namespace spectx
