// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "spectx/detail/page_demand.hpp"
#include "spectx/planner_config.hpp"

namespace spectx::detail {

/// Device bytes beside the arena: staging, tables, step lists, the head's workspace, scratch.
inline index_t fixed_bytes(const ModelShape& shape, const PlannerConfig& config,
                           const PoolPlan& plan) {
  const PoolLayout layout(shape, plan);
  return config.scratch_bytes + layout.staging_bytes + layout.table_bytes() +
         layout.step_list_bytes() +
         HeadLayout(shape, plan, config.head, config.compute_dtype).bytes();
}

/// Layers whose rows of one token and KV head are a contiguous 2 KiB in the host tier, so that
/// scattered reads reach the link's rate: a power of two, or all layers.
inline index_t layers_per_group(const ModelShape& shape, DType host) {
  constexpr index_t kRunBytes = 2048;
  index_t layers = 1;
  const index_t row_bytes = (shape.k_dim + shape.v_dim) * dtype_bytes(host);
  while (layers * row_bytes < kRunBytes) layers *= 2;
  return std::min(layers, shape.cached_layers());
}

/// Arena pages for everything that is not lent: the slots and head keys of all requests.
inline index_t own_pages(const PoolPlan& plan, const PoolLayout& layout) {
  return plan.max_requests * (layout.groups * layout.slot_pages + layout.key_pages);
}

/// What the configuration leaves for the pool and the components.
inline index_t bytes_left(const PlannerConfig& config) {
  return config.device_bytes - config.model_bytes - config.head_weight_bytes - config.lent_bytes;
}

/// A plan with its arena and host tier as large as the memories allow, but no larger than all
/// requests at max_length can use.
inline PoolPlan plan_tiers(const ModelShape& shape, const PlannerConfig& config,
                           bool has_host_tier) {
  PoolPlan plan{.selection = config.selection,
                .max_requests = config.max_requests,
                .max_length = config.max_length,
                .max_step_rows = config.max_step_rows,
                .page_rows = config.page_rows,
                .page_order = config.page_order,
                .head_kv_heads = config.head.kv_heads,
                .head_k_dim = config.head.k_dim,
                .host_dtype = config.host_dtype.value_or(shape.dtype),
                .write_batch = config.write_batch};
  if (has_host_tier) {
    const auto slots = static_cast<index_t>(
        std::ceil(config.hot_buffer * static_cast<double>(config.selection.budget)));
    plan.slots = ceil_div(std::max(slots, config.selection.largest_budget()), plan.page_rows) *
                 plan.page_rows;
    plan.group_layers = config.group_layers > 0
                            ? std::min(config.group_layers, shape.cached_layers())
                            : layers_per_group(shape, plan.host_dtype);
    plan.staging_pages = ceil_div(plan.max_length, plan.page_rows);
  }
  const PoolLayout layout(shape, plan);
  const index_t tokens = plan.max_requests * layout.groups * layout.token_pages;
  const index_t all = config.lent_bytes > 0
                          ? own_pages(plan, layout)
                          : tokens + plan.max_requests * layout.key_pages + layout.slot_pages;
  const index_t bytes = bytes_left(config) - fixed_bytes(shape, config, plan);
  plan.arena_pages = std::clamp<index_t>(bytes / layout.page_bytes, 0, all);
  if (config.lent_bytes > 0) {
    const index_t pages = config.lends_whole_requests ? layout.groups : 1;
    plan.lent_pages = config.lent_bytes / (pages * layout.page_bytes) * pages;
    plan.lent_group_stride = config.lends_whole_requests ? layout.page_bytes : 0;
    if (!plan.lends())
      throw OutOfMemory(Tier::lender, pages * layout.page_bytes, config.lent_bytes);
  }
  if (has_host_tier) {
    plan.host_pages = std::min(config.host_bytes / layout.host_page_bytes,
                               plan.max_requests * layout.groups * layout.token_pages);
  }
  return plan;
}

/// The fewest groups, of all requests together, that have to be on the host so that `requests`
/// requests of `length` can run to that end at once; -1: they cannot.
inline index_t fewest_on_host(const PageDemand& demand, index_t requests, index_t length) {
  const index_t keys = requests * demand.key_pages(length);
  const index_t all_groups = requests * demand.groups();
  if (all_groups * demand.token_pages(length) + keys <= demand.limit()) return 0;
  if (!demand.can_leave(length)) return -1;
  const index_t counted = all_groups * demand.counted_pages(length, length) + keys;
  const index_t relief = demand.relief(length, length) * demand.unit();
  const index_t leaving = ceil_div(counted - demand.limit(), relief) * demand.unit();
  const bool fits =
      leaving <= all_groups && leaving * demand.token_pages(length) <= demand.host_pages();
  return fits ? leaving : -1;
}

/// The most requests of max_length that can run at once, at most max_requests.
inline index_t requests_at_once(const ModelShape& shape, const PoolPlan& plan) {
  const PoolLayout layout(shape, plan);
  if (plan.lends() && plan.arena_pages < own_pages(plan, layout)) return 0;
  const PageDemand demand(plan, layout);
  index_t fit = 0;
  for (index_t too_many = plan.max_requests + 1; fit + 1 < too_many;) {
    const index_t middle = fit + (too_many - fit) / 2;
    (fewest_on_host(demand, middle, plan.max_length) >= 0 ? fit : too_many) = middle;
  }
  return fit;
}

/// Says what one request of max_length lacks, or the arena beside lent pages.
[[noreturn]] inline void throw_too_small(const ModelShape& shape, const PlannerConfig& config,
                                         const PoolPlan& plan) {
  const PoolLayout layout(shape, plan);
  const index_t groups =
      plan.has_host_tier() ? std::min(layout.token_pages, layout.slot_pages) : layout.token_pages;
  const index_t pages = plan.lends()
                            ? own_pages(plan, layout)
                            : layout.groups * groups + layout.key_pages + layout.slot_pages;
  if (pages > plan.arena_pages || (!plan.has_host_tier() && !plan.lends())) {
    throw OutOfMemory(Tier::device, pages * layout.page_bytes + fixed_bytes(shape, config, plan),
                      std::max<index_t>(0, bytes_left(config)));
  }
  if (!plan.has_host_tier()) {
    throw OutOfMemory(Tier::lender, layout.groups * layout.token_pages * layout.page_bytes,
                      config.lent_bytes);
  }
  throw OutOfMemory(Tier::host, layout.groups * layout.token_pages * layout.host_page_bytes,
                    config.host_bytes);
}

/// A host tier where it lets more requests run at once, or where it is forced.
inline PoolPlan plan_pool(const ModelShape& shape, const PlannerConfig& config) {
  const bool may_offload = !config.has_one_memory && config.host_bytes > 0;
  const PoolPlan one_tier = plan_tiers(shape, config, false);
  const index_t at_once = requests_at_once(shape, one_tier);
  if (!config.force_host_tier && (!may_offload || at_once == config.max_requests)) {
    if (at_once == 0) throw_too_small(shape, config, one_tier);
    return one_tier;
  }
  expects(config.selection.largest_budget() <= kMostSlottedBudget,
          "MemoryPlanner: with a host tier a budget is at most 8192 rows");
  const PoolPlan two_tiers = plan_tiers(shape, config, true);
  const index_t at_once_offloaded = requests_at_once(shape, two_tiers);
  if (!config.force_host_tier && at_once > 0 && at_once >= at_once_offloaded) return one_tier;
  if (at_once_offloaded == 0) throw_too_small(shape, config, two_tiers);
  return two_tiers;
}

}  // namespace spectx::detail
