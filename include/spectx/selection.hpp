// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/error.hpp"
#include "spectx/view.hpp"

namespace spectx {

struct SelectionConfig {
  index_t budget = 2048;       // rows that a KV head reads in a step, sinks and window included
  index_t sinks = 4;           // first tokens, always selected
  index_t recent_window = 64;  // last tokens, this step's rows among them, always selected
};

/// Throws InvalidArgument unless the budget holds the forced rows and one more.
inline void check_selection(const SelectionConfig& s) {
  expects(s.sinks >= 0, "SelectionConfig: sinks must not be negative");
  expects(s.recent_window >= 1, "SelectionConfig: recent_window must be at least 1");
  expects(s.budget > s.sinks + s.recent_window,
          "SelectionConfig: budget must be larger than sinks + recent_window");
}

/// Which rows each KV head reads in one step; any selector may write one. Ids ascend, so a row's
/// rank is its place among them; the window's tokens have the last ranks.
struct Selection {
  Array<std::int32_t> ids;     // [items, kv_heads, max_budget]
  Array<std::int32_t> counts;  // [items, kv_heads] at most max_budget, or kAllTokens
  Array<float> coverage;       // [items, kv_heads, 2] min and mean over the group's query heads of
                               // the softmax mass on the selection; may be empty
  index_t max_budget = 0;
};

}  // namespace spectx
