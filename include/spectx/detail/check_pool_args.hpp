// SPDX-License-Identifier: Apache-2.0
#pragma once

// check_args() of the operations that move rows between the tiers; include spectx/check_args.hpp.
#include "spectx/detail/check_views.hpp"

namespace spectx {

namespace detail {

inline bool are_misses(const StepLists& lists) noexcept {
  return lists.max_budget > 0 && lists.max_budget <= kMostSize && lists.miss_ids != nullptr &&
         lists.miss_slots != nullptr && lists.miss_counts != nullptr;
}
inline bool has_dtypes(const KVPoolView& pool) noexcept {
  return is_row_type(pool.dtype) &&
         (pool.run.is_lossy ? pool.run.dtype == DType::f8_e4m3 || pool.run.dtype == DType::i8
                            : true);
}
inline bool is_place(const RowPlace& place, const KVPoolView& pool) noexcept {
  switch (place.kind) {
    case RowPlace::Kind::tokens:
    case RowPlace::Kind::staging:
      return place.pages != nullptr;
    case RowPlace::Kind::slots:
      return place.pages != nullptr && has_slot_map(pool);
    case RowPlace::Kind::host:
      return place.pages != nullptr && pool.run.bytes > 0;
  }
  return false;
}

}  // namespace detail

inline void check_args(const UpdateSlotsArgs& a, const OperationLimits&) {
  using namespace detail;
  expects(is_batch(a.batch), "update_slots: batch must be what KVPool::schedule made");
  const index_t items = num_items(*a.batch);
  supports(a.selection.max_budget <= kMostSlottedBudget,
           "update_slots: no backend has a kernel for a budget of more than 8192");
  expects(has_slot_map(a.pool) && a.pool.clock != nullptr && a.pool.durable != nullptr &&
              a.pool.resident_groups != nullptr,
          "update_slots: pool must be the view of a KVPool with a host tier");
  expects(is_selection(a.selection, items, a.pool.kv_heads),
          "update_slots: selection must have ids and counts of every item and KV head");
  expects(a.selection.max_budget <= a.pool.slots,
          "update_slots: the budget must not be larger than the pool's slots");
  expects(are_misses(a.lists) && a.lists.slot_of_rank != nullptr && a.lists.hit_counts != nullptr &&
              a.lists.max_budget >= a.selection.max_budget,
          "update_slots: lists must have room for the selection");
}

inline void check_args(const ForgetSlotsArgs& a, const OperationLimits&) {
  expects(detail::has_slot_map(a.pool),
          "forget_slots: pool must be the view of a KVPool with a host tier");
  expects(a.request.value >= 0 && a.first >= 0 && a.first <= detail::kMostSize,
          "forget_slots: request and first must not be negative");
}

inline void check_args(const GatherRowsArgs& a, const OperationLimits&) {
  using namespace detail;
  expects(is_batch(a.batch), "gather_rows: batch must be what KVPool::schedule made");
  expects(has_host_rows(a.pool) && a.group >= 0 && a.group < a.pool.groups,
          "gather_rows: group must be one of a pool with a host tier");
  expects(are_misses(a.lists), "gather_rows: lists must be what update_slots wrote");
  expects(a.max_blocks > 0, "gather_rows: max_blocks must be positive");
  expects(a.first_layer >= 0 && a.num_layers >= 0 && a.layers() >= 0 &&
              a.first_layer + a.layers() <= a.pool.layers_of(a.group),
          "gather_rows: layers must be some of the group's");
  supports(has_dtypes(a.pool), "gather_rows: no backend has a kernel for the types of the tiers");
}

inline void check_args(const ScatterRowsArgs& a, const OperationLimits&) {
  using namespace detail;
  expects(is_batch(a.batch), "scatter_rows: batch must be what KVPool::schedule made");
  expects(has_host_rows(a.pool) && has_slot_map(a.pool) && a.pool.durable != nullptr,
          "scatter_rows: pool must be the view of a KVPool with a host tier");
  expects(a.write_batch > 0, "scatter_rows: write_batch must be positive");
  supports(has_dtypes(a.pool), "scatter_rows: no backend has a kernel for the types of the tiers");
}

inline void check_args(const MoveRowsArgs& a, const OperationLimits&) {
  using namespace detail;
  expects(is_pool(a.pool) && a.request.value >= 0 && a.group >= 0 && a.group < a.pool.groups &&
              a.layer >= -1 && a.layer < a.pool.layers_of(a.group),
          "move_rows: group and layer must be of the pool, or layer -1");
  expects(is_place(a.from, a.pool) && is_place(a.to, a.pool) &&
              !(a.from.kind == RowPlace::Kind::host && a.to.kind == RowPlace::Kind::host),
          "move_rows: from and to must be places that the pool has, one of them on the device");
  expects(a.first >= 0 && a.last <= kMostSize, "move_rows: first and last must be tokens");
  supports(has_dtypes(a.pool), "move_rows: no backend has a kernel for the types of the tiers");
}

/// Backend::copy and fill.
inline void check_memory(const void* to, const void* from, index_t bytes) {
  expects(bytes >= 0 && (bytes == 0 || (to != nullptr && from != nullptr)),
          "Backend: copy and fill need an address, and bytes that are not negative");
}

}  // namespace spectx
