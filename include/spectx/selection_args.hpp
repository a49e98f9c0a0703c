// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/batch.hpp"
#include "spectx/kv_view.hpp"
#include "spectx/selection.hpp"

namespace spectx {

// Arguments of the operations that make a selection. `leads`: Batch::lead_row.

/// How the weights of several query heads become one score.
enum class GroupReduce : std::uint8_t { max, mean };

/// For every item that selects, KV head and cached token n in [1, first]: the log weight
/// q.k_n * scale - log_sum, log_sum over those tokens, reduced over the group's query heads (max,
/// or the log of the mean weight) and by max over the item's lead rows. Token 0 gets -infinity.
struct ScoreArgs {
  TensorView q;  // [leads, query_heads, k_dim]
  KVView keys;   // K only
  const Batch* batch = nullptr;
  GroupReduce reduce = GroupReduce::max;
  float scale = 1;
  TensorView log_sum;  // [leads, query_heads] f32, written
  TensorView scores;   // [items, kv_heads, max_length] f32, written
};
/// scores[i, 0] = scores[i, h] over all heads h, reduced: max, or the log of the mean weight; NaN
/// where one is NaN. For the items that select, tokens [0, first].
struct JoinHeadsArgs {
  TensorView scores;  // [items, kv_heads, max_length] f32
  const Batch* batch = nullptr;
  GroupReduce reduce = GroupReduce::max;
};
/// Exact top-k: sinks, the best of the middle, the window; ids ascend; ties go to the lower id; NaN
/// ranks below every number. Items that do not select get kAllTokens.
struct TopKArgs {
  TensorView scores;  // [items, head_kv_heads, max_length] f32
  const Batch* batch = nullptr;
  SelectionConfig rule;
  Array<const std::int32_t> budgets{};          // [items] in place of rule.budget; 0: no change
  Array<const std::int32_t> head_of_kv_head{};  // [kv_heads] row of scores that serves a KV head
  Selection out;                                // ids and counts written
  std::int32_t* saw_nan = nullptr;              // [1], set to 1 and never cleared
};
/// coverage = the selection's softmax mass of each query head; min and mean over the group; 1 where
/// everything is read.
struct CoverageArgs {
  TensorView q;  // [leads, query_heads, k_dim]
  KVView keys;
  const Batch* batch = nullptr;
  float scale = 1;
  TensorView log_sum;                   // [leads, query_heads] f32, of score
  Array<const std::int32_t> budgets{};  // [items], of top_k; 0: no change
  Array<const std::int32_t> head_of_kv_head{};
  Selection selection;  // coverage written
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
/// ring[request, position % ring_rows] = rows, for the last ring_rows rows of every item.
struct StoreRingArgs {
  TensorView rows;  // [rows, width]
  const Batch* batch = nullptr;
  TensorView ring;  // [max_requests, ring_rows, width]
};
/// out[lead] = ring[request, (first position of its item - 1) % ring_rows]; zeros for position 0.
struct LoadRingArgs {
  TensorView ring;
  const Batch* batch = nullptr;
  TensorView out;  // [leads, width]
};

}  // namespace spectx
