// SPDX-License-Identifier: Apache-2.0
#pragma once

// The ladder of budgets of RetrievalHead; include spectx/retrieval_head.hpp.
#include "spectx/retrieval_head.hpp"

namespace spectx {

/// The smallest rung of the ladder that covers enough, or, without a guard, the budget.
inline void RetrievalHead::choose(const Batch& batch, TensorView queries, StreamView stream) {
  const Array<const std::int32_t> budgets = rule_.has_guard() ? budgets_ : Array<std::int32_t>{};
  const bool is_measured = config_.measures_coverage || rule_.has_guard();
  selection_.coverage.size =
      is_measured ? 2 * pool_.plan().max_requests * pool_.shape().kv_heads : 0;
  for (index_t rung = 0; rung < rule_.num_rungs(); ++rung) {
    backend_.top_k({.scores = scores_,
                    .batch = &batch,
                    .rule = rule_,
                    .budgets = budgets,
                    .head_of_kv_head = scores_of_kv_head_,
                    .out = selection_,
                    .saw_nan = nan_flag_},
                   stream);
    if (!is_measured) continue;
    backend_.coverage({.q = queries,
                       .keys = pool_.key_view(),
                       .batch = &batch,
                       .scale = scale_,
                       .log_sum = log_sum_,
                       .budgets = budgets,
                       .head_of_kv_head = head_of_kv_head_,
                       .selection = selection_},
                      stream);
    guard(batch, rung, stream);
  }
}

inline void RetrievalHead::guard(const Batch& batch, index_t rung, StreamView stream) {
  if (!rule_.has_guard()) return;
  backend_.guard({.batch = &batch,
                  .rule = rule_,
                  .rung = rung,
                  .kv_heads = pool_.shape().kv_heads,
                  .selection = selection_,
                  .budgets = budgets_,
                  .rungs = rungs_,
                  .resident_groups = pool_.view().resident_groups,
                  .groups = pool_.layout().groups},
                 stream);
}

inline void RetrievalHead::set_rule(const SelectionConfig& rule) {
  check_selection(rule);
  expects(rule.largest_budget() <= selection_.max_budget,
          "RetrievalHead::set_rule: the largest budget is larger than the plan's");
  expects(rule.sinks == rule_.sinks && rule.recent_window == rule_.recent_window,
          "RetrievalHead::set_rule: sinks and recent_window must be the plan's");
  rule_ = rule;
  selection_.outcomes = {outcomes_, rule.has_guard() ? pool_.plan().max_requests : 0};
}

inline void RetrievalHead::set_budget(index_t budget) {
  SelectionConfig rule = rule_;
  rule.budget = budget;
  set_rule(rule);
}

}  // namespace spectx
