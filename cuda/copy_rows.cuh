// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/warp.cuh"
#include "views.cuh"

// Where rows are in the two tiers, and how a warp copies them.
namespace spectx::cu {

/// Page and place in it of row n.
struct PageRow {
  std::uint32_t page, row;

  __device__ PageRow(const KVPoolView& pool, std::uint32_t n)
      : page(n / static_cast<std::uint32_t>(pool.page_rows)),
        row(n % static_cast<std::uint32_t>(pool.page_rows)) {}
};

/// KVPoolView::device_row of layer 0 of a group; layers are device_layer_bytes() apart.
__device__ inline std::byte* device_row(const KVPoolView& pool, std::byte* const* pages,
                                        index_t head, std::uint32_t n) {
  const PageRow at(pool, n);
  return pages[at.page] + (head * pool.page_rows + at.row) * pool.row_bytes;
}
__device__ inline index_t device_layer_bytes(const KVPoolView& pool) {
  return pool.kv_heads * pool.page_rows * pool.row_bytes;
}
/// KVPoolView::host_run.
__device__ inline std::byte* host_run(const KVPoolView& pool, std::byte* const* pages, index_t head,
                                      std::uint32_t token) {
  const PageRow at(pool, token);
  return pages[at.page] + (at.row * pool.kv_heads + head) * pool.run.bytes;
}
__device__ inline std::byte* const* pages_of(const KVPoolView& pool, index_t request,
                                             index_t group) {
  return pool.pages + (request * pool.groups + group) * pool.page_columns;
}
__device__ inline std::byte* const* host_pages_of(const KVPoolView& pool, index_t request,
                                                  index_t group) {
  return pool.host_pages + (request * pool.groups + group) * pool.page_columns;
}
__device__ inline index_t layers_of(const KVPoolView& pool, index_t group) {
  return min(pool.layers - group * pool.group_layers, pool.group_layers);
}
__device__ inline std::int32_t slot_of(const KVPoolView& pool, index_t request, index_t head,
                                       index_t token) {
  return pool.slot_of_token[(request * pool.kv_heads + head) * pool.max_length + token];
}

/// Rows of some layers of one token, layer_bytes apart.
struct LayerRows {
  std::byte* first;
  index_t layer_bytes;
};

/// Copies a row of each of `layers` layers; a warp takes it, a lane the Units that it reaches. All
/// of a lane's loads of a run of 2 KiB are in flight before it stores.
template <class Unit>
__device__ void copy_layers(const LayerRows& to, const LayerRows& from, int layers, int row_bytes) {
  constexpr int kUnroll = 4;
  const int row_units = row_bytes / static_cast<int>(sizeof(Unit));
  const int units = layers * row_units;
  for (int base = device::lane_index(); base < units; base += kUnroll * device::kWarpSize) {
    Unit held[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = base + u * device::kWarpSize;
      if (i >= units) break;
      const int layer = i / row_units;
      held[u] = reinterpret_cast<const Unit*>(from.first +
                                              layer * from.layer_bytes)[i - layer * row_units];
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = base + u * device::kWarpSize;
      if (i >= units) break;
      const int layer = i / row_units;
      reinterpret_cast<Unit*>(to.first + layer * to.layer_bytes)[i - layer * row_units] = held[u];
    }
  }
}

/// Calls body.operator()<Unit>() with the widest unit of which rows are multiples. Pages are
/// aligned to it.
template <class Body>
void dispatch_unit(index_t row_bytes, Body&& body) {
  if (row_bytes % 16 == 0) return body.template operator()<uint4>();
  if (row_bytes % 4 == 0) return body.template operator()<std::uint32_t>();
  if (row_bytes % 2 == 0) return body.template operator()<std::uint16_t>();
  return body.template operator()<std::uint8_t>();
}

}  // namespace spectx::cu
