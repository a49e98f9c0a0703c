// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/memory_planner.hpp"

namespace spectx::test {

/// Three groups of eight layers.
inline ModelShape planner_shape(index_t query_heads = 4, index_t kv_heads = 2) {
  return {.layers = 24,
          .query_heads = query_heads,
          .kv_heads = kv_heads,
          .k_dim = 64,
          .v_dim = 64,
          .hidden = 256,
          .vocabulary = 1000,
          .dtype = DType::bf16,
          .rope = {},
          .attention = {}};
}

/// Pages of 16 tokens, slots of two pages, requests of at most 16 pages. No memory yet.
inline PlannerConfig planner_config() {
  PlannerConfig config;
  config.selection = {.budget = 32, .sinks = 2, .recent_window = 8};
  config.head = {.query_heads = 4, .kv_heads = 2, .k_dim = 64};
  config.max_requests = 4;
  config.max_length = 256;
  config.max_step_rows = 32;
  config.page_rows = 16;
  config.hot_buffer = 1;
  config.write_batch = 4;
  return config;
}

/// With a device tier of `arena_pages` and a host tier of `host_pages`.
inline PlannerConfig planner_config(const ModelShape& shape, index_t arena_pages,
                                    index_t host_pages, PlannerConfig config = planner_config()) {
  config.force_host_tier = true;
  config.device_bytes = index_t{1} << 40;
  config.host_bytes = index_t{1} << 40;
  const PoolPlan plan = detail::plan_tiers(shape, config, /*has_host_tier=*/true);
  const index_t page_bytes = PoolLayout(shape, plan).page_bytes;
  config.device_bytes = arena_pages * page_bytes + detail::fixed_bytes(shape, config, plan);
  config.host_bytes = host_pages * page_bytes;
  return config;
}

/// Llama-3.1-8B's shape under 80 GB.
inline ModelShape llama_shape(index_t kv_heads = 8) {
  return {.layers = 32,
          .query_heads = 32,
          .kv_heads = kv_heads,
          .k_dim = 128,
          .v_dim = 128,
          .hidden = 4096,
          .vocabulary = 128'256,
          .dtype = DType::bf16,
          .rope = {},
          .attention = {}};
}

inline PlannerConfig llama_config() {
  PlannerConfig config;
  config.device_bytes = index_t{80} << 30;
  config.host_bytes = index_t{112} << 30;
  config.model_bytes = 16'060'522'496;
  config.head = {.query_heads = 32, .kv_heads = 8, .k_dim = 128};
  config.compute_dtype = DType::bf16;
  config.max_length = 34'816;
  return config;
}

inline RequestNeed need(std::int32_t id, index_t length, index_t final_length,
                        index_t resident_groups) {
  RequestNeed n;
  n.request = {id};
  n.length = length;
  n.final_length = final_length;
  n.resident_groups = static_cast<std::int32_t>(resident_groups);
  return n;
}

}  // namespace spectx::test
