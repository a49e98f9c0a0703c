// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "spectx/kv_view.hpp"

namespace spectx::test {

struct PoolShape {
  index_t requests = 2, groups = 3, group_layers = 2, layers = 5;
  index_t kv_heads = 2, k_dim = 4, v_dim = 6;
  index_t page_rows = 4, max_length = 64, slots = 16;
  DType dtype = DType::bf16;
  DType host_dtype = DType::bf16;
  PageOrder order = PageOrder::heads;

  index_t row_bytes() const { return (k_dim + v_dim) * dtype_bytes(dtype); }
  index_t page_columns() const { return (std::max(max_length, slots) + page_rows - 1) / page_rows; }
  HostRun run() const { return make_host_run(dtype, host_dtype, k_dim + v_dim, group_layers); }
  /// Without its arrays.
  KVPoolView geometry() const {
    KVPoolView v;
    v.groups = groups;
    v.page_columns = page_columns();
    v.page_rows = page_rows;
    v.group_layers = group_layers;
    v.layers = layers;
    v.kv_heads = kv_heads;
    v.k_dim = k_dim;
    v.v_dim = v_dim;
    v.row_bytes = row_bytes();
    v.k_bytes = k_dim * dtype_bytes(dtype);
    v.strides = page_strides(order, page_rows, kv_heads, v.k_bytes, v.row_bytes - v.k_bytes);
    v.slots = slots;
    v.max_length = max_length;
    v.dtype = dtype;
    v.run = run();
    return v;
  }
};

/// Types of the rows and of the host tier.
using HostTypes = std::pair<DType, DType>;

inline std::vector<HostTypes> host_types() {
  return {{DType::bf16, DType::bf16},    {DType::f32, DType::f8_e4m3}, {DType::f16, DType::f8_e4m3},
          {DType::bf16, DType::f8_e4m3}, {DType::f32, DType::i8},      {DType::f16, DType::i8},
          {DType::bf16, DType::i8}};
}

/// What copies a row: its types, and whether it is wide (see tier_shape).
inline std::vector<std::pair<HostTypes, bool>> row_kinds() {
  std::vector<std::pair<HostTypes, bool>> kinds;
  for (const HostTypes& types : host_types()) {
    for (const bool is_wide : {false, true}) kinds.emplace_back(types, is_wide);
  }
  return kinds;
}

inline std::vector<PageOrder> page_orders() {
  return {PageOrder::heads, PageOrder::rows, PageOrder::split_heads, PageOrder::split_rows};
}

/// Rows of odd sizes, or of whole units of 16 numbers.
inline PoolShape tier_shape(index_t requests, HostTypes types, bool is_wide,
                            PageOrder order = PageOrder::heads) {
  PoolShape shape{.requests = requests, .dtype = types.first, .host_dtype = types.second};
  shape.order = order;
  if (is_wide) {
    shape.k_dim = 32;
    shape.v_dim = 48;
  }
  if (is_split(order)) shape.v_dim = shape.k_dim;
  return shape;
}

}  // namespace spectx::test
