// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/pool_layout.hpp"

namespace spectx {

/// Sizes of a retrieval head, for the planner. kv_heads 0: no head.
struct HeadShape {
  index_t query_heads = 0;
  index_t kv_heads = 0;
  index_t k_dim = 0;
  index_t hidden = 0;           // 0: the target's
  index_t normed_features = 0;  // tapped hidden states normalised together before fc; 0: none are

  index_t width(const ModelShape& target) const noexcept {
    return hidden == 0 ? target.hidden : hidden;
  }
};

/// Device bytes of a RetrievalHead beside its weights and its keys (which are pages of the pool).
struct HeadLayout {
  static constexpr index_t kRingRows = 64;  // features that a request keeps, for rewinding

  HeadLayout(const ModelShape& shape, const PoolPlan& plan, const HeadShape& head,
             DType compute_dtype);

  index_t bytes() const noexcept {
    return feature_bytes + fused_bytes + ring_bytes + input_bytes + query_bytes + key_bytes +
           log_sum_bytes + score_bytes + ids_bytes + count_bytes + coverage_bytes +
           3 * guard_bytes + constant_bytes;
  }

  // width: the head's hidden size
  index_t feature_bytes;   // [max_step_rows, normed_features * hidden] normalised hidden states
  index_t fused_bytes;     // [max_step_rows, width] features of the step
  index_t ring_bytes;      // [max_requests, kRingRows, width]
  index_t input_bytes;     // [max_step_rows, 2 width] embedding and feature, normalised
  index_t query_bytes;     // [max_step_rows, query_heads, k_dim]
  index_t key_bytes;       // [max_step_rows, kv_heads, k_dim]
  index_t log_sum_bytes;   // [max_step_rows, query_heads] f32
  index_t score_bytes;     // [max_requests, kv_heads, max_length] f32
  index_t ids_bytes;       // [max_requests, target kv_heads, largest_budget()] int32
  index_t count_bytes;     // [max_requests, target kv_heads] int32
  index_t coverage_bytes;  // [max_requests, target kv_heads, 2] f32
  index_t guard_bytes;     // [max_requests] int32: of budgets, rungs and outcomes each
  index_t constant_bytes;  // RoPE frequencies, head maps, fed leads, NaN flag, zeros
};

inline HeadLayout::HeadLayout(const ModelShape& shape, const PoolPlan& plan, const HeadShape& head,
                              DType compute_dtype) {
  const auto aligned = PoolLayout::aligned;
  const index_t element = dtype_bytes(compute_dtype);
  const index_t rows = plan.max_step_rows;
  const index_t target_heads = plan.max_requests * shape.kv_heads;
  const bool is_there = head.kv_heads > 0;
  const index_t width = is_there ? head.width(shape) * element : 0;
  feature_bytes = is_there ? aligned(rows * head.normed_features * shape.hidden * element) : 0;
  fused_bytes = aligned(rows * width);
  ring_bytes = aligned(plan.max_requests * kRingRows * width);
  input_bytes = aligned(2 * rows * width);
  query_bytes = aligned(rows * head.query_heads * head.k_dim * element);
  key_bytes = aligned(rows * head.kv_heads * head.k_dim * element);
  log_sum_bytes = aligned(rows * head.query_heads * 4);
  score_bytes = aligned(plan.max_requests * head.kv_heads * plan.max_length * 4);
  ids_bytes = is_there ? aligned(target_heads * plan.selection.largest_budget() * 4) : 0;
  count_bytes = is_there ? aligned(target_heads * 4) : 0;
  coverage_bytes = is_there ? aligned(target_heads * 2 * 4) : 0;
  guard_bytes = is_there ? aligned(plan.max_requests * 4) : 0;
  constant_bytes = is_there ? aligned(head.k_dim / 2 * 4) + 2 * aligned(shape.kv_heads * 4) +
                                  aligned(rows * 4) + PoolLayout::kAlignment +
                                  (head.normed_features > 1 ? aligned(shape.hidden * element) : 0)
                            : 0;
}

}  // namespace spectx
