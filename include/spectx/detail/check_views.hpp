// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>

#include "spectx/backend.hpp"
#include "spectx/error.hpp"

namespace spectx {

/// What a backend has kernels for.
struct OperationLimits {
  bool has_half_activations = true;                             // beside f32
  index_t most_head_dim = std::numeric_limits<index_t>::max();  // of attend, score, coverage
  index_t most_rope_dim = std::numeric_limits<index_t>::max();
};

}  // namespace spectx

// What check_args() asks of a view. No memory is read but the host's.
namespace spectx::detail {

/// Throws Unsupported(what) unless `holds`.
inline void supports(bool holds, const char* what) {
  if (!holds) throw Unsupported(what);
}

/// f32, f16 or bf16: what weights and rows are of.
constexpr bool is_row_type(DType dtype) noexcept {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

inline bool is_activation(DType dtype, const OperationLimits& limits) noexcept {
  return limits.has_half_activations ? is_row_type(dtype) : dtype == DType::f32;
}

inline constexpr index_t kMostSize = std::numeric_limits<std::int32_t>::max();  // of a dimension

/// Whether it has so many dimensions, an address that its type may have, and a dense last
/// dimension. Every offset inside it is far from the end of 64 bits.
inline bool is_tensor(const TensorView& t, int rank) noexcept {
  if (t.rank != rank) return false;
  double elements = 1;
  double extent = 1;
  for (int i = 0; i < rank; ++i) {
    const index_t size = t.shape[static_cast<std::size_t>(i)];
    const index_t stride = t.strides[static_cast<std::size_t>(i)];
    if (size < 0 || size > kMostSize || stride < 0) return false;
    elements *= static_cast<double>(size);
    extent += static_cast<double>(size) * static_cast<double>(stride);
  }
  const auto last = static_cast<std::size_t>(rank - 1);
  if (extent > 0x1p58 || elements > 0x1p58) return false;
  if (elements == 0) return true;
  const auto bytes = static_cast<std::uintptr_t>(dtype_bytes(t.dtype));
  const auto address = reinterpret_cast<std::uintptr_t>(t.data);
  return address != 0 && bytes > 0 && address % bytes == 0 &&
         (t.strides[last] == 1 || t.shape[last] == 1);
}

/// The same, with rows that lie apart, as those must that are written.
inline bool is_written(const TensorView& t, int rank) noexcept {
  if (!is_tensor(t, rank)) return false;
  index_t inner = 1;
  for (int i = rank - 1; i >= 0; --i) {
    const auto d = static_cast<std::size_t>(i);
    if (t.shape[d] > 1 && t.strides[d] < inner) return false;
    inner = t.shape[d] * (t.shape[d] > 1 ? t.strides[d] : inner);
  }
  return true;
}

/// Whether there is an address for `count` entries and the array has them.
template <class T>
bool holds(const Array<T>& array, index_t count) noexcept {
  return array.size >= count && (array.data != nullptr || count == 0);
}
/// [a, b, c]
template <class T>
bool holds(const Array<T>& array, index_t a, index_t b, index_t c = 1) noexcept {
  const double count = static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
  return static_cast<double>(array.size) >= count && (array.data != nullptr || count == 0);
}

inline index_t num_items(const Batch& batch) noexcept {
  return static_cast<index_t>(batch.items.size());
}

/// Whether its arrays have entries for its items, rows and leads.
inline bool is_batch(const Batch* batch) noexcept {
  if (batch == nullptr) return false;
  const index_t items = num_items(*batch);
  return batch->num_rows >= 0 && holds(batch->item, batch->num_rows) &&
         holds(batch->position, batch->num_rows) && holds(batch->request, items) &&
         holds(batch->length, items) && holds(batch->selects, items) &&
         (items == 0 ||
          (holds(batch->row_begin, items + 1) && holds(batch->lead_begin, items + 1))) &&
         holds(batch->lead_row, batch->lead_row.size);
}

/// Whether scores of `tokens` tokens have a place for all that items which select have cached.
inline bool has_place_for_tokens(const Batch& batch, index_t tokens) noexcept {
  for (const ScheduledItem& item : batch.items) {
    if (item.selects && (item.first < 0 || item.rows < 0 || item.first + item.rows > tokens)) {
      return false;
    }
  }
  return true;
}

/// Whether `rows` rows of an operation stand for rows of an array of `size` entries.
template <class T>
bool names_rows(const Array<const std::int32_t>& row_index, index_t rows,
                const Array<T>& of_batch) noexcept {
  return row_index.size == 0 ? holds(of_batch, rows)
                             : holds(row_index, rows) && (of_batch.data != nullptr || rows == 0);
}

/// Whether rows can be found by it: pages and the strides inside them.
inline bool is_kv_view(const KVView& kv, index_t items) noexcept {
  const bool has_geometry = kv.table_stride >= 0 && kv.page_rows > 0 && kv.page_rows <= kMostSize &&
                            kv.layer_offset >= 0 && kv.head_stride >= 0 && kv.row_stride >= 0 &&
                            kv.v_offset >= 0 && kv.kv_heads > 0 && kv.k_dim > 0 && kv.v_dim >= 0;
  return has_geometry && (items == 0 || kv.table != nullptr);
}
/// Whether it says which rows an item reads: all, or those of a list.
inline bool has_ids(const KVView& kv) noexcept {
  return kv.counts == nullptr ||
         (kv.ids != nullptr && kv.max_budget > 0 && kv.max_budget <= kMostSize);
}

/// Whether it has a slot map and pages.
inline bool is_pool(const KVPoolView& pool) noexcept {
  return pool.pages != nullptr && pool.resident_groups != nullptr && pool.groups > 0 &&
         pool.group_layers > 0 && pool.layers > (pool.groups - 1) * pool.group_layers &&
         pool.page_columns > 0 && pool.page_rows > 0 && pool.page_rows <= kMostSize &&
         pool.kv_heads > 0 && pool.k_dim > 0 && pool.v_dim > 0;
}
inline bool has_slot_map(const KVPoolView& pool) noexcept {
  return pool.slots > 0 && pool.max_length > 0 && pool.max_length <= kMostSize &&
         pool.kv_heads > 0 && pool.slot_of_token != nullptr && pool.token_of_slot != nullptr &&
         pool.last_used != nullptr;
}
inline bool has_host_rows(const KVPoolView& pool) noexcept {
  return is_pool(pool) && pool.host_pages != nullptr && pool.run.bytes > 0;
}

/// Whether every item and KV head has a count and room for `max_budget` ids.
inline bool is_selection(const Selection& s, index_t items, index_t kv_heads) noexcept {
  return s.max_budget > 0 && s.max_budget <= kMostSize &&
         holds(s.ids, items, kv_heads, s.max_budget) && holds(s.counts, items, kv_heads);
}

}  // namespace spectx::detail
