// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "eval/host_copy.hpp"
#include "eval/selections.hpp"

namespace spectx::eval {

/// Share of the selected rows that are not in a buffer of `slots` rows a KV head, when the recorded
/// selections (one set a step) go through the backend's update_slots: mean over KV heads and all
/// steps but the first, which fills the buffer.
/// @param first  position of the first step
double miss_rate(Backend& backend, StreamView stream, const Recorded& selections, index_t first,
                 index_t slots);

}  // namespace spectx::eval
