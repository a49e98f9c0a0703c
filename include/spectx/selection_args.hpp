// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/batch.hpp"
#include "spectx/selection.hpp"

namespace spectx {

/// How the weights of several query heads become one score.
enum class GroupReduce : std::uint8_t { max, mean };

/// scores[i, 0] = scores[i, h] over all heads h, reduced: max, or the log of the mean weight; NaN
/// where one is NaN. For the items that select, tokens [0, first].
struct JoinHeadsArgs {
  TensorView scores;  // [items, kv_heads, max_length] f32
  const Batch* batch = nullptr;
  GroupReduce reduce = GroupReduce::max;
};

/// One rung of the ladder of budgets. Rung -1 starts it: budgets[i] = rule.budget, outcomes are
/// `kept`, and a request whose item has position 0 forgets its rung. Rung r, after top_k and
/// coverage, for the items that are still on the ladder: coverage is the mean over KV heads of the
/// selection's second figures, added in ascending order in float; it is enough if it reaches
/// rule.min_coverage, or rule.comfortable_coverage() where r < rungs[request], or if the item is no
/// longer than the rung. Then, or after the last rung, the item leaves the ladder (budgets[i] = 0)
/// and rungs[request] = r; else budgets[i] is the next rung. An item that leaves the last rung with
/// too little reads everything (counts kAllTokens, coverage 1) if all groups of its request are
/// resident and rule.may_read_all, else it is `limited`.
struct GuardArgs {
  const Batch* batch = nullptr;
  SelectionConfig rule;
  index_t rung = -1;
  index_t kv_heads = 0;                           // of the selection
  Selection selection;                            // counts, coverage, outcomes
  Array<std::int32_t> budgets;                    // [items]
  Array<std::int32_t> rungs;                      // [max_requests] the rung last read
  const std::int32_t* resident_groups = nullptr;  // [max_requests]
  index_t groups = 0;
};

}  // namespace spectx
