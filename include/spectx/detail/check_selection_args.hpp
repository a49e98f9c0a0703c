// SPDX-License-Identifier: Apache-2.0
#pragma once

// check_args() of the operations that make a selection; include spectx/check_args.hpp.
#include "spectx/detail/check_views.hpp"

namespace spectx {

namespace detail {

inline bool is_f32(const TensorView& t) noexcept { return t.dtype == DType::f32; }

/// [items, heads, max_length] f32 with a place for every cached token of items that select.
inline bool are_scores(const TensorView& t, const Batch& batch) noexcept {
  return is_written(t, 3) && is_f32(t) && t.shape[0] >= num_items(batch) && t.shape[1] > 0 &&
         has_place_for_tokens(batch, t.shape[2]);
}
/// q [leads, query_heads, k_dim] and its log sums [leads, query_heads] f32.
inline bool are_queries(const TensorView& q, const TensorView& log_sum, const KVView& keys,
                        const Batch& batch) noexcept {
  return is_tensor(q, 3) && q.shape[0] >= batch.lead_row.size && q.shape[1] > 0 &&
         q.shape[1] % keys.kv_heads == 0 && q.shape[2] == keys.k_dim && is_written(log_sum, 2) &&
         is_f32(log_sum) && log_sum.shape[0] >= batch.lead_row.size &&
         log_sum.shape[1] == q.shape[1];
}
/// KV heads of the target, of which a map names each one's head; empty: each serves itself.
inline index_t target_heads(const Array<const std::int32_t>& head_of_kv_head,
                            index_t heads) noexcept {
  return head_of_kv_head.size == 0 ? heads : head_of_kv_head.size;
}
inline bool is_map(const Array<const std::int32_t>& head_of_kv_head) noexcept {
  return head_of_kv_head.size >= 0 && holds(head_of_kv_head, head_of_kv_head.size);
}
inline bool are_budgets(const Array<const std::int32_t>& budgets, index_t items) noexcept {
  return budgets.size == 0 || holds(budgets, items);
}
inline bool is_rule(const SelectionConfig& rule) noexcept {
  return rule.sinks >= 0 && rule.recent_window >= 0 && rule.budget > 0 &&
         rule.largest_budget() <= kMostSize && rule.sinks <= kMostSize &&
         rule.recent_window <= kMostSize && rule.budget >= rule.sinks + rule.recent_window;
}

}  // namespace detail

inline void check_args(const ScoreArgs& a, const OperationLimits& limits) {
  using namespace detail;
  expects(is_batch(a.batch), "score: batch must be what KVPool::schedule made");
  expects(is_kv_view(a.keys, num_items(*a.batch)), "score: keys must be what KVPool made");
  expects(are_queries(a.q, a.log_sum, a.keys, *a.batch),
          "score: q must be [leads, query_heads, k_dim], log_sum [leads, query_heads] f32");
  expects(are_scores(a.scores, *a.batch) && a.scores.shape[1] == a.keys.kv_heads,
          "score: scores must be [items, kv_heads, max_length] f32, as long as the items");
  supports(is_row_type(a.keys.dtype) && is_activation(a.q.dtype, limits),
           "score: this backend has no kernel for the types of q and keys");
  supports(a.keys.k_dim <= limits.most_head_dim,
           "score: this backend has no kernel for heads so wide");
}

inline void check_args(const JoinHeadsArgs& a, const OperationLimits&) {
  using namespace detail;
  expects(is_batch(a.batch), "join_heads: batch must be what KVPool::schedule made");
  expects(are_scores(a.scores, *a.batch),
          "join_heads: scores must be [items, kv_heads, max_length] f32, as long as the items");
}

inline void check_args(const TopKArgs& a, const OperationLimits&) {
  using namespace detail;
  expects(is_batch(a.batch), "top_k: batch must be what KVPool::schedule made");
  expects(are_scores(a.scores, *a.batch),
          "top_k: scores must be [items, head_kv_heads, max_length] f32, as long as the items");
  expects(is_rule(a.rule), "top_k: rule must have a budget of at least its sinks and window");
  const index_t items = num_items(*a.batch);
  expects(is_map(a.head_of_kv_head) && are_budgets(a.budgets, items),
          "top_k: budgets must be empty or [items], head_of_kv_head empty or [kv_heads]");
  const index_t most = a.budgets.size == 0 ? a.rule.budget : a.rule.largest_budget();
  expects(is_selection(a.out, items, target_heads(a.head_of_kv_head, a.scores.shape[1])) &&
              a.out.max_budget >= most,
          "top_k: out must have ids [items, kv_heads, max_budget] of the budget, and counts");
}

inline void check_args(const CoverageArgs& a, const OperationLimits& limits) {
  using namespace detail;
  expects(is_batch(a.batch), "coverage: batch must be what KVPool::schedule made");
  const index_t items = num_items(*a.batch);
  expects(is_kv_view(a.keys, items), "coverage: keys must be what KVPool made");
  expects(are_queries(a.q, a.log_sum, a.keys, *a.batch),
          "coverage: q must be [leads, query_heads, k_dim], log_sum [leads, query_heads] f32");
  expects(is_map(a.head_of_kv_head) && are_budgets(a.budgets, items),
          "coverage: budgets must be empty or [items], head_of_kv_head empty or [kv_heads]");
  const index_t heads = target_heads(a.head_of_kv_head, a.keys.kv_heads);
  expects(is_selection(a.selection, items, heads) && holds(a.selection.coverage, items, heads, 2),
          "coverage: selection must have ids, counts and coverage of every item and KV head");
  supports(is_row_type(a.keys.dtype) && is_activation(a.q.dtype, limits),
           "coverage: this backend has no kernel for the types of q and keys");
  supports(a.keys.k_dim <= limits.most_head_dim,
           "coverage: this backend has no kernel for heads so wide");
}

inline void check_args(const GuardArgs& a, const OperationLimits&) {
  using namespace detail;
  expects(is_batch(a.batch), "guard: batch must be what KVPool::schedule made");
  expects(is_rule(a.rule), "guard: rule must have a budget of at least its sinks and window");
  expects(a.rung >= -1 && a.rung < a.rule.num_rungs(),
          "guard: rung must be -1 or one of the rule's ladder");
  const index_t items = num_items(*a.batch);
  const Selection& s = a.selection;
  expects(a.kv_heads > 0 && a.kv_heads <= kMostSize && holds(s.counts, items, a.kv_heads) &&
              holds(s.coverage, items, a.kv_heads, 2) && holds(s.outcomes, items),
          "guard: selection must have counts, coverage and outcomes of kv_heads KV heads");
  expects(holds(a.budgets, items) && (items == 0 || holds(a.rungs, 1)) &&
              (items == 0 || a.resident_groups != nullptr),
          "guard: budgets must be [items], rungs and resident_groups [max_requests]");
}

inline void check_args(const StoreRingArgs& a, const OperationLimits& limits) {
  using namespace detail;
  expects(is_batch(a.batch), "store_ring: batch must be what KVPool::schedule made");
  expects(is_tensor(a.rows, 2) && a.rows.shape[0] >= a.batch->num_rows,
          "store_ring: rows must be [rows, width]");
  expects(is_written(a.ring, 3) && a.ring.shape[1] > 0 && a.ring.shape[2] == a.rows.shape[1],
          "store_ring: ring must be [max_requests, ring_rows, width]");
  supports(is_row_type(a.ring.dtype) && is_activation(a.rows.dtype, limits),
           "store_ring: this backend has no kernel for the types of rows and ring");
}

inline void check_args(const LoadRingArgs& a, const OperationLimits& limits) {
  using namespace detail;
  expects(is_batch(a.batch), "load_ring: batch must be what KVPool::schedule made");
  expects(is_written(a.out, 2) && a.out.shape[0] >= a.batch->lead_row.size,
          "load_ring: out must be [leads, width]");
  expects(is_tensor(a.ring, 3) && a.ring.shape[1] > 0 && a.ring.shape[2] == a.out.shape[1],
          "load_ring: ring must be [max_requests, ring_rows, width]");
  supports(is_row_type(a.ring.dtype) && is_activation(a.out.dtype, limits),
           "load_ring: this backend has no kernel for the types of ring and out");
}

}  // namespace spectx
