// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "spectx/backend.hpp"

// The bytes that an operation has to read and write once, whatever backend runs it: what its time
// is held against. Host arithmetic on the shapes and on Batch::items; nothing on the device is
// read, so what only the device knows (how many rows missed) is an argument.
namespace spectx {

namespace detail {

inline index_t tensor_bytes(const TensorView& t) noexcept {
  return t.size() * dtype_bytes(t.dtype);
}

/// Rows that an item reads of each KV head: its selection, or everything.
inline index_t ranks_of(const ScheduledItem& item, bool has_selection,
                        index_t max_budget) noexcept {
  const index_t length = item.first + item.rows;
  return has_selection && item.selects ? std::min(length, max_budget) : length;
}

}  // namespace detail

inline index_t bytes_moved(const EmbedArgs& a) noexcept {
  return detail::tensor_bytes(a.out) + a.out.size() * dtype_bytes(a.table.dtype);
}

inline index_t bytes_moved(const MatmulArgs& a) noexcept {
  const index_t times = a.beta == 0 ? 1 : 2;
  return detail::tensor_bytes(a.x) + detail::tensor_bytes(a.w) +
         times * detail::tensor_bytes(a.out);
}

inline index_t bytes_moved(const RmsNormArgs& a) noexcept {
  return detail::tensor_bytes(a.x) + detail::tensor_bytes(a.weight) + detail::tensor_bytes(a.out);
}

inline index_t bytes_moved(const RopeArgs& a) noexcept { return 2 * detail::tensor_bytes(a.x); }

inline index_t bytes_moved(const SwigluArgs& a) noexcept {
  return detail::tensor_bytes(a.gate) + detail::tensor_bytes(a.up) + detail::tensor_bytes(a.out);
}

inline index_t bytes_moved(const AddArgs& a) noexcept {
  return detail::tensor_bytes(a.a) + detail::tensor_bytes(a.b) + detail::tensor_bytes(a.out);
}

inline index_t bytes_moved(const ArgmaxArgs& a) noexcept {
  return detail::tensor_bytes(a.logits) +
         a.logits.shape[0] * static_cast<index_t>(sizeof(std::int32_t));
}

inline index_t bytes_moved(const AppendRowsArgs& a) noexcept {
  return detail::tensor_bytes(a.k) + detail::tensor_bytes(a.v) +
         (a.k.size() + a.v.size()) * dtype_bytes(a.to.dtype);
}

/// Every key once, and the scores.
inline index_t bytes_moved(const ScoreArgs& a) noexcept {
  index_t tokens = 0;
  for (const ScheduledItem& item : a.batch->items) tokens += item.selects ? item.first : 0;
  return tokens * a.keys.kv_heads *
         (a.keys.k_dim * dtype_bytes(a.keys.dtype) + dtype_bytes(a.scores.dtype));
}

/// The scores of the middle once, and the ids.
inline index_t bytes_moved(const TopKArgs& a) noexcept {
  const index_t kv_heads = a.head_of_kv_head.size == 0 ? a.scores.shape[1] : a.head_of_kv_head.size;
  index_t bytes = 0;
  for (const ScheduledItem& item : a.batch->items) {
    if (!item.selects) continue;
    const index_t length = item.first + item.rows;
    const index_t middle =
        length <= a.rule.budget ? 0 : length - a.rule.sinks - a.rule.recent_window;
    const index_t ids = std::min(length, a.rule.budget);
    bytes += kv_heads * (middle * dtype_bytes(a.scores.dtype) + ids * index_t{4});
  }
  return bytes;
}

/// The selected keys once.
inline index_t bytes_moved(const CoverageArgs& a) noexcept {
  const index_t kv_heads = a.head_of_kv_head.size == 0 ? a.keys.kv_heads : a.head_of_kv_head.size;
  index_t rows = 0;
  for (const ScheduledItem& item : a.batch->items) {
    if (item.selects) rows += detail::ranks_of(item, true, a.selection.max_budget);
  }
  return rows * kv_heads * a.keys.k_dim * dtype_bytes(a.keys.dtype);
}

/// The scores of every head, and those that they become.
inline index_t bytes_moved(const JoinHeadsArgs& a) noexcept {
  index_t tokens = 0;
  for (const ScheduledItem& item : a.batch->items) tokens += item.selects ? item.first + 1 : 0;
  return tokens * (a.scores.shape[1] + 1) * dtype_bytes(a.scores.dtype);
}

/// Of an item: the mean coverage of every KV head, its budget and its outcome.
inline index_t bytes_moved(const GuardArgs& a) noexcept {
  return static_cast<index_t>(a.batch->items.size()) * (a.kv_heads + 2) * index_t{4};
}

inline index_t bytes_moved(const StoreRingArgs& a) noexcept {
  index_t rows = 0;
  for (const ScheduledItem& item : a.batch->items) rows += std::min(item.rows, a.ring.shape[1]);
  return rows * a.ring.shape[2] * (dtype_bytes(a.rows.dtype) + dtype_bytes(a.ring.dtype));
}

inline index_t bytes_moved(const LoadRingArgs& a) noexcept {
  return a.out.size() * (dtype_bytes(a.out.dtype) + dtype_bytes(a.ring.dtype));
}

/// The slot map's slots (token, last use), and of every selected id: itself, its map entry, its
/// slot.
inline index_t bytes_moved(const UpdateSlotsArgs& a) noexcept {
  index_t entries = 0;
  for (const ScheduledItem& item : a.batch->items) {
    if (!item.selects) continue;
    entries += 2 * a.pool.slots + 3 * detail::ranks_of(item, true, a.selection.max_budget);
  }
  return entries * a.pool.kv_heads * static_cast<index_t>(sizeof(std::int32_t));
}

/// `missed`: rows of all items and KV heads that were not in a slot. Read from the host tier and
/// written to the device.
inline index_t bytes_moved(const GatherRowsArgs& a, index_t missed) noexcept {
  const index_t layers = a.layers();
  return missed * (a.pool.run.bytes_of(layers) + layers * a.pool.row_bytes);
}

/// `token_layers`: tokens that are written through, each times the offloaded layers of its request.
inline index_t bytes_moved(const ScatterRowsArgs& a, index_t token_layers) noexcept {
  return token_layers * a.pool.kv_heads * (a.pool.run.bytes_of(1) + a.pool.row_bytes);
}

/// At most: a place of slots holds only some of the tokens.
inline index_t bytes_moved(const MoveRowsArgs& a) noexcept {
  const index_t layers = a.layer < 0 ? a.pool.layers_of(a.group) : 1;
  const index_t device = layers * a.pool.row_bytes;
  const bool uses_host = a.from.kind == RowPlace::Kind::host || a.to.kind == RowPlace::Kind::host;
  const index_t bytes = device + (uses_host ? a.pool.run.bytes_of(layers) : device);
  return (a.last - a.first) * a.pool.kv_heads * bytes;
}

/// K and V of every row that is read once, and the queries and results.
inline index_t bytes_moved(const AttendArgs& a) noexcept {
  index_t ranks = 0;
  for (const ScheduledItem& item : a.batch->items) {
    if (item.rows > 0) ranks += detail::ranks_of(item, a.kv.counts != nullptr, a.kv.max_budget);
  }
  return ranks * a.kv.kv_heads * (a.kv.k_dim + a.kv.v_dim) * dtype_bytes(a.kv.dtype) +
         detail::tensor_bytes(a.q) + detail::tensor_bytes(a.out);
}

}  // namespace spectx
