// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "spectx/error.hpp"
#include "spectx/view.hpp"

namespace spectx {

/// Largest budget with a host tier, on every backend: update_slots holds a selection in the shared
/// memory of a block.
inline constexpr index_t kMostSlottedBudget = 8192;

struct SelectionConfig {
  index_t budget = 2048;       // rows that a KV head reads in a step, sinks and window included
  index_t sinks = 4;           // first tokens, always selected
  index_t recent_window = 64;  // last tokens, this step's rows among them, always selected

  // The guard. A step of a request climbs a ladder of budgets, each twice the one before, the last
  // max_budget, until its coverage reaches min_coverage. Coverage is the head's softmax mass on the
  // selection, mean over the query heads (and over the rows of an item).
  index_t max_budget = 0;    // 0: budget
  float min_coverage = 0;    // in [0, 1]; 0: no guard
  float hysteresis = 0.25F;  // in [0, 1): a request comes down to a rung once the mass left out
                             // there is at most (1 - hysteresis) (1 - min_coverage)
  bool may_read_all = true;  // where max_budget falls short and all groups are on the device

  bool has_guard() const noexcept { return min_coverage > 0; }
  /// Rows that a KV head reads at most, unless it reads everything: what tables are sized for.
  index_t largest_budget() const noexcept { return std::max(budget, max_budget); }
  /// Rows of a rung of the ladder.
  index_t rung(index_t i) const noexcept { return std::min(budget << i, largest_budget()); }
  index_t num_rungs() const noexcept {
    index_t rungs = 1;
    while (has_guard() && rung(rungs - 1) < largest_budget()) ++rungs;
    return rungs;
  }
  /// Coverage that is enough on a rung for a request that has read more.
  float comfortable_coverage() const noexcept { return 1 - (1 - hysteresis) * (1 - min_coverage); }
};

/// Throws InvalidArgument unless the budget holds the forced rows and one more.
inline void check_selection(const SelectionConfig& s) {
  expects(s.sinks >= 0, "SelectionConfig: sinks must not be negative");
  expects(s.recent_window >= 1, "SelectionConfig: recent_window must be at least 1");
  expects(s.budget > s.sinks + s.recent_window,
          "SelectionConfig: budget must be larger than sinks + recent_window");
  expects(s.max_budget == 0 || s.max_budget >= s.budget,
          "SelectionConfig: max_budget must be 0 or at least budget");
  expects(s.min_coverage >= 0 && s.min_coverage <= 1,
          "SelectionConfig: min_coverage must be in [0, 1]");
  expects(s.hysteresis >= 0 && s.hysteresis < 1, "SelectionConfig: hysteresis must be in [0, 1)");
}

/// What the guard did for an item.
enum class GuardOutcome : std::int32_t {
  kept,     // the budget: enough, or no selection
  raised,   // a larger rung: enough, or kept by hysteresis
  full,     // everything: max_budget was too little
  limited,  // max_budget, though it is too little
};

/// Which rows each KV head reads in one step; any selector may write one. Ids ascend, so a row's
/// rank is its place among them; the window's tokens have the last ranks.
struct Selection {
  Array<std::int32_t> ids;     // [items, kv_heads, max_budget]
  Array<std::int32_t> counts;  // [items, kv_heads] at most max_budget, or kAllTokens
  Array<float> coverage;       // [items, kv_heads, 2] min and mean over the group's query heads of
                               // the softmax mass on the selection; may be empty
  index_t max_budget = 0;
  Array<GuardOutcome> outcomes{};  // [items]; empty: no guard
};

}  // namespace spectx
