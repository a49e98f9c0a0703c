// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "spectx/types.hpp"

namespace spectx {

/// One open request, as the planner sees it.
struct RequestNeed {
  RequestId request;
  index_t length = 0;        // tokens cached
  index_t final_length = 0;  // reservation
  std::int32_t resident_groups = 0;
  std::int32_t moving_to = -1;  // resident groups once the move under way is done; -1: none
  bool is_parked = false;       // only its head keys are on the device
};

/// What lives where from the next step on: groups [0, resident_groups) of a request stay on the
/// device. One entry for each RequestNeed, in its order; valid until the planner's next call.
struct Placement {
  std::span<const RequestNeed> needs;
  std::span<const std::int32_t> resident_groups;
};

enum class Admission : std::uint8_t { now, later, never };

}  // namespace spectx
