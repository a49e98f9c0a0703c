// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/planner_config.hpp"

namespace spectx::detail {

/// Throws unless every size that follows is far from the end of 64 bits, so that PoolLayout can
/// multiply without looking.
inline void check_magnitude(const ModelShape& s, const PoolPlan& p) {
  const auto is_in = [](index_t n, index_t least, index_t most) { return n >= least && n <= most; };
  expects(is_in(p.max_requests, 1, kMaxDimension), "KVPool: max_requests must be in 1 .. 2^20");
  expects(is_in(p.max_length, 1, kMaxRows), "KVPool: max_length must be in 1 .. 2^31 - 1");
  expects(is_in(p.max_step_rows, 1, kMaxRows), "KVPool: max_step_rows must be in 1 .. 2^31 - 1");
  expects(is_in(p.page_rows, 1, kMaxDimension), "KVPool: page_rows must be in 1 .. 2^20");
  expects(is_in(p.group_layers, 1, kMaxDimension), "KVPool: group_layers must be in 1 .. 2^20");
  expects(is_in(p.slots, 0, kMaxRows), "KVPool: slots must be in 0 .. 2^31 - 1");
  expects(is_in(p.head_kv_heads, 0, kMaxDimension) && is_in(p.head_k_dim, 0, kMaxDimension),
          "KVPool: head_kv_heads and head_k_dim must be in 0 .. 2^20");
  double pages = 0;
  for (const index_t count :
       {p.arena_pages, p.lent_pages, p.host_pages, p.staging_pages, p.staging_pages}) {
    expects(is_in(count, 0, kMaxBytes), "KVPool: a number of pages must be in 0 .. 2^60");
    pages += static_cast<double>(count);
  }
  const auto real = [](index_t n) { return static_cast<double>(n); };
  constexpr double kScales = 64;  // of a row in a host page, and what rounds it up
  const double page =
      real(p.page_rows) * real(p.group_layers) * real(s.kv_heads) * (real(s.row_bytes()) + kScales);
  const double rows = real(p.max_length) + real(p.slots) + real(p.selection.largest_budget());
  const double tables = real(p.max_requests) * (rows + 2 * real(p.page_rows)) * 64 *
                        (real(s.kv_heads) + real(s.layers));
  expects(pages * page + tables < real(kMaxBytes), "KVPool: the plan is too large for this shape");
}

/// Throws unless a pool of the shape can be built by the plan.
inline void check_pool_plan(const ModelShape& shape, const PoolPlan& plan) {
  expects(plan.selection.largest_budget() <= kMaxRows && plan.selection.sinks <= kMaxRows &&
              plan.selection.recent_window <= kMaxRows,
          "SelectionConfig: budget, sinks and recent_window must be below 2^31");
  check_selection(plan.selection);
  check_magnitude(shape, plan);
  expects(plan.arena_pages > 0 || plan.lends(), "KVPool: the plan has no arena pages");
  expects(plan.lent_group_stride >= 0 && (plan.lends() || !plan.moves_whole_requests()),
          "KVPool: lent_group_stride is of lent pages");
  expects(!is_split(plan.page_order) || shape.k_dim == shape.v_dim,
          "KVPool: a page with all K before all V needs k_dim == v_dim");
  const PoolLayout layout(shape, plan);
  expects(plan.head_kv_heads == 0 || layout.key_page_rows > 0,
          "KVPool: a page is smaller than one row of the head's keys");
  if (plan.has_host_tier()) {
    expects(plan.slots % plan.page_rows == 0, "KVPool: slots must be whole pages");
    expects(plan.slots >= plan.selection.largest_budget(),
            "KVPool: slots must hold the largest budget");
    expects(plan.selection.largest_budget() <= kMostSlottedBudget,
            "KVPool: with a host tier a budget is at most 8192 rows");
    expects(plan.write_batch > 0 && plan.write_batch < plan.selection.recent_window,
            "KVPool: recent_window must be larger than write_batch");
    if (!is_host_dtype(shape.dtype, plan.host_dtype)) {
      throw Unsupported("KVPool: the host tier must be of the rows' type, f8_e4m3 or i8");
    }
  }
}

}  // namespace spectx::detail
