// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "spectx/kv_pool.hpp"

namespace spectx::test {

/// Six layers, the third without full attention; k_dim and v_dim differ.
inline ModelShape pool_shape(DType dtype = DType::f32) {
  ModelShape shape{.layers = 6,
                   .query_heads = 4,
                   .kv_heads = 2,
                   .k_dim = 4,
                   .v_dim = 6,
                   .hidden = 8,
                   .vocabulary = 16,
                   .dtype = dtype,
                   .rope = {},
                   .attention = std::vector<AttentionKind>(6, AttentionKind::full)};
  shape.attention[2] = AttentionKind::sliding;
  return shape;
}

/// Three groups, of two, two and one layers; pages of 4 tokens, slots of 8 pages, requests of at
/// most 120 tokens. Room for three of them on the device and on the host.
inline PoolPlan pool_plan(DType dtype = DType::f32) {
  PoolPlan plan;
  plan.selection = {.budget = 24, .sinks = 1, .recent_window = 8};
  plan.max_requests = 3;
  plan.max_length = 120;
  plan.max_step_rows = 40;
  plan.page_rows = 4;
  plan.group_layers = 2;
  plan.slots = 32;
  plan.staging_pages = 60;
  plan.head_kv_heads = 1;
  plan.head_k_dim = 4;
  plan.arena_pages = 3 * (3 * (30 + 8) + 10);
  plan.host_pages = 3 * 3 * 30;
  plan.host_dtype = dtype;
  plan.write_batch = 4;
  return plan;
}

/// The same with one memory.
inline PoolPlan one_tier_plan() {
  PoolPlan plan = pool_plan();
  plan.slots = plan.staging_pages = plan.host_pages = 0;
  return plan;
}

/// What a host can see of a pool.
struct Seen {
  explicit Seen(const KVPool& pool) {
    const PoolStats s = pool.stats();
    figures = {s.device_used, s.device_total, s.lent, s.host_used, s.host_total, s.stalled_batches};
    for (const RequestNeed& n : pool.needs()) {
      figures.insert(figures.end(), {n.request.value, n.length, n.final_length, n.resident_groups,
                                     n.moving_to, n.is_parked ? 1 : 0});
      figures.push_back(static_cast<index_t>(pool.state(n.request)));
    }
  }
  friend bool operator==(const Seen&, const Seen&) = default;
  std::vector<index_t> figures;
};

}  // namespace spectx::test
