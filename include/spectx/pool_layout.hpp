// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "spectx/kv_view.hpp"
#include "spectx/model_shape.hpp"
#include "spectx/selection.hpp"

namespace spectx {

/// What a pool is built with, fixed for its life. Made by MemoryPlanner::pool_plan().
struct PoolPlan {
  SelectionConfig selection;
  index_t max_requests = 0;
  index_t max_length = 0;     // tokens of one request
  index_t max_step_rows = 0;  // rows of one batch
  index_t page_rows = 64;     // tokens a page
  PageOrder page_order = PageOrder::heads;
  index_t group_layers = 1;  // layers a group, the unit of placement
  index_t slots = 0;  // device rows a KV head of an offloaded group, whole pages; 0: one memory
  index_t arena_pages = 0;  // of all requests and groups
  index_t lent_pages = 0;   // most that a PageLender lends for resident groups; 0: of the arena
  index_t lent_group_stride = 0;  // bytes from a group's page to the next group's in a lent block,
                                  // which has all groups; 0: pages are lent group by group
  index_t staging_pages = 0;  // token pages, of one layer, that prompts on the host are staged in
  index_t host_pages = 0;     // most that the host tier may grow to
  index_t head_kv_heads = 0;  // of the retrieval head's keys; 0: no head
  index_t head_k_dim = 0;
  DType host_dtype = DType::bf16;  // of the host tier: the rows' own type, f8_e4m3 or i8
  index_t write_batch = 32;        // rows that are written through to the host at once

  bool has_host_tier() const noexcept { return slots > 0; }
  bool lends() const noexcept { return lent_pages > 0; }
  bool moves_whole_requests() const noexcept { return lent_group_stride > 0; }
};

constexpr index_t ceil_div(index_t a, index_t b) noexcept { return (a + b - 1) / b; }

/// Where a step's time stamps lie: those of the step, then those of each group.
struct StepStamps {
  static constexpr index_t kBegin = 0, kTransfersBegin = 1, kEnd = 2;
  static constexpr index_t kWrite = 3, kWriteEnd = 4;  // only where the trace takes device spans
  static constexpr index_t kLeadEnd = 5, kLeadWait = 6, kLeadWaitEnd = 7;  // of lead_layers
  static constexpr index_t kStep = 8, kGroup = 4;
  static constexpr index_t kTransfer = 0, kTransferEnd = 1, kWait = 2, kWaitEnd = 3;

  static constexpr index_t of_group(index_t group, index_t which) noexcept {
    return kStep + group * kGroup + which;
  }
  static constexpr index_t count(index_t groups) noexcept { return kStep + groups * kGroup; }
};

/// Every size that follows from a model's shape and a plan: one arithmetic for the components,
/// which allocate, and for MemoryPlanner, which predicts.
///
/// device page  [layer of the group][kv head][row][K | V], or as PageOrder says
/// host page    [row][kv head][HostRun]                        one miss is one contiguous run
/// key page     [head kv head][row][K]                         of the retrieval head
/// staging page one layer of a device page                     two sets take turns
struct PoolLayout {
  static constexpr index_t kAlignment = 256;    // bytes, of every table
  static constexpr index_t kFigureRecords = 4;  // steps whose figures may be under way

  PoolLayout(const ModelShape& shape, const PoolPlan& plan);

  static constexpr index_t aligned(index_t bytes) noexcept {
    return ceil_div(bytes, kAlignment) * kAlignment;
  }
  /// Bytes of KVPool's device memory beside arena and staging: tables and batch arrays.
  index_t table_bytes() const noexcept {
    const bool two_tiers = token_table_bytes > 0;
    return (two_tiers ? 3 : 1) * page_table_bytes + staging_table_bytes + key_table_bytes +
           2 * slot_table_bytes + token_table_bytes + 2 * request_array_bytes + kAlignment +
           batch_bytes;
  }
  /// Bytes of PrefetchPipeline's device memory: ranks to slots, misses, and the figures; and what
  /// warms requests meanwhile.
  index_t step_list_bytes() const noexcept {
    return 3 * rank_table_bytes + figure_bytes() + warm_list_bytes();
  }
  /// Ranks to slots, misses, and a batch's arrays.
  index_t warm_list_bytes() const noexcept {
    return rank_table_bytes == 0 ? 0 : 3 * rank_table_bytes + 2 * head_count_bytes + batch_bytes;
  }
  /// Of the figures of a step, which go to the host: misses and hits a KV head, time stamps, counts
  /// of the selection and outcomes of the guard.
  index_t figure_bytes() const noexcept {
    return 2 * head_count_bytes + stamp_bytes + selection_count_bytes + request_array_bytes;
  }
  /// Bytes of PrefetchPipeline's host memory.
  index_t host_figure_bytes() const noexcept { return kFigureRecords * figure_bytes(); }

  index_t groups;
  index_t unit;         // groups of a request that leave and return together
  index_t token_pages;  // of one group of one request at max_length
  index_t slot_pages;   // of one offloaded group of one request
  index_t row_bytes;    // one token's K and V of one KV head in one layer
  index_t k_bytes;      // of its K
  PageStrides strides;  // in a device page
  HostRun run;          // the same in the host tier, all layers of a group
  index_t page_bytes;   // of a device page
  index_t host_page_bytes;
  index_t layer_bytes;    // of one layer in a device page; of a staging page
  index_t key_row_bytes;  // one token's keys of the retrieval head
  index_t key_page_rows;  // tokens whose keys fit in a page
  index_t key_pages;      // of one request at max_length

  index_t arena_bytes;
  index_t staging_bytes;
  index_t page_table_bytes;       // [max_requests, groups, token_pages or slot_pages] addresses
  index_t page_table_columns;     // the larger of the two
  index_t staging_table_bytes;    // [max_requests, 2, token_pages] addresses
  index_t key_table_bytes;        // [max_requests, key_pages] addresses
  index_t slot_table_bytes;       // [max_requests, kv_heads, slots] int32
  index_t token_table_bytes;      // [max_requests, kv_heads, max_length] int32
  index_t request_array_bytes;    // [max_requests] int32
  index_t batch_bytes;            // the arrays of Batch
  index_t rank_table_bytes;       // [max_requests, kv_heads, largest_budget()] int32
  index_t head_count_bytes;       // [max_requests, kv_heads] int32
  index_t selection_count_bytes;  // the same, also without a host tier
  index_t stamp_bytes;            // [StepStamps::count(groups)] uint64
  index_t lead_layers;            // of the first group, which no computation hides: fetched before
                                  // its others; 0: it comes as a whole
};

inline PoolLayout::PoolLayout(const ModelShape& shape, const PoolPlan& plan) {
  constexpr index_t kInt = sizeof(std::int32_t);
  constexpr index_t kPointer = sizeof(void*);
  const bool two_tiers = plan.has_host_tier();
  const index_t heads = plan.max_requests * shape.kv_heads;

  groups = ceil_div(shape.cached_layers(), plan.group_layers);
  unit = plan.moves_whole_requests() ? groups : 1;
  token_pages = ceil_div(plan.max_length, plan.page_rows);
  slot_pages = ceil_div(plan.slots, plan.page_rows);
  row_bytes = shape.row_bytes();
  k_bytes = shape.k_dim * dtype_bytes(shape.dtype);
  strides =
      page_strides(plan.page_order, plan.page_rows, shape.kv_heads, k_bytes, row_bytes - k_bytes);
  run = make_host_run(shape.dtype, two_tiers ? plan.host_dtype : shape.dtype,
                      shape.k_dim + shape.v_dim, plan.group_layers);
  layer_bytes = plan.page_rows * shape.kv_heads * row_bytes;
  page_bytes = plan.group_layers * layer_bytes;
  host_page_bytes = plan.page_rows * shape.kv_heads * run.bytes;
  key_row_bytes = plan.head_kv_heads * plan.head_k_dim * dtype_bytes(shape.dtype);
  key_page_rows = key_row_bytes == 0 ? 0 : page_bytes / key_row_bytes;
  key_pages = key_page_rows == 0 ? 0 : ceil_div(plan.max_length, key_page_rows);

  arena_bytes = plan.arena_pages * page_bytes;
  staging_bytes = two_tiers ? 2 * plan.staging_pages * layer_bytes : 0;
  page_table_columns = token_pages > slot_pages ? token_pages : slot_pages;
  page_table_bytes = aligned(plan.max_requests * groups * page_table_columns * kPointer);
  staging_table_bytes = two_tiers ? aligned(plan.max_requests * 2 * token_pages * kPointer) : 0;
  key_table_bytes = aligned(plan.max_requests * key_pages * kPointer);
  slot_table_bytes = two_tiers ? aligned(heads * plan.slots * kInt) : 0;
  token_table_bytes = two_tiers ? aligned(heads * plan.max_length * kInt) : 0;
  request_array_bytes = aligned(plan.max_requests * kInt);
  batch_bytes =
      5 * aligned(plan.max_step_rows * kInt) + 6 * aligned((plan.max_requests + 1) * kInt);
  rank_table_bytes = two_tiers ? aligned(heads * plan.selection.largest_budget() * kInt) : 0;
  selection_count_bytes = aligned(heads * kInt);
  head_count_bytes = two_tiers ? selection_count_bytes : 0;
  const index_t first = std::min(plan.group_layers, shape.cached_layers());
  lead_layers = two_tiers && first > 1 ? std::max(first / 4, index_t{1}) : 0;
  const index_t stamps = StepStamps::count(groups);
  stamp_bytes = two_tiers ? aligned(stamps * static_cast<index_t>(sizeof(std::uint64_t))) : 0;
}

}  // namespace spectx
