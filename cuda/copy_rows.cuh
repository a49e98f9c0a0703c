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

/// Rows of some layers of one token.
struct LayerRows {
  std::byte* first;
  index_t layer_bytes;  // from a layer's row to the next one's
  index_t v_gap;        // bytes between a row's K and V
};

/// KVPoolView::device_row of the layers of a group from `layer` on.
__device__ inline LayerRows device_rows(const KVPoolView& pool, std::byte* const* pages,
                                        index_t head, std::uint32_t n, index_t layer = 0) {
  const PageRow at(pool, n);
  return {pages[at.page] + layer * pool.strides.layer + head * pool.strides.head +
              index_t{at.row} * pool.strides.row,
          pool.strides.layer, pool.strides.v - pool.k_bytes};
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

/// Copies a row of each of `layers` layers; a warp takes it, a lane the Units that it reaches. All
/// of a lane's loads of a run of 2 KiB are in flight before it stores.
template <class Unit>
__device__ void copy_layers(const KVPoolView& pool, const LayerRows& to, const LayerRows& from,
                            int layers) {
  constexpr int kUnroll = 4;
  constexpr int kUnitBytes = static_cast<int>(sizeof(Unit));
  const int row_units = static_cast<int>(pool.row_bytes) / kUnitBytes;
  const int k_units = static_cast<int>(pool.k_bytes) / kUnitBytes;
  const int units = layers * row_units;
  const auto address = [&](const LayerRows& rows, int i) {
    const int layer = i / row_units;
    const int unit = i - layer * row_units;
    return reinterpret_cast<Unit*>(rows.first + layer * rows.layer_bytes + unit * kUnitBytes +
                                   (unit < k_units ? 0 : rows.v_gap));
  };
  for (int base = device::lane_index(); base < units; base += kUnroll * device::kWarpSize) {
    Unit held[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = base + u * device::kWarpSize;
      if (i >= units) break;
      held[u] = *address(from, i);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = base + u * device::kWarpSize;
      if (i >= units) break;
      *address(to, i) = held[u];
    }
  }
}

/// Calls body.operator()<Unit>() with the widest unit of which rows are multiples, or their K and V
/// where these are apart. Pages are aligned to it.
template <class Body>
void dispatch_unit(const KVPoolView& pool, Body&& body) {
  const index_t bits = pool.row_bytes | (pool.strides.v == pool.k_bytes ? 0 : pool.k_bytes);
  if (bits % 16 == 0) return body.template operator()<uint4>();
  if (bits % 4 == 0) return body.template operator()<std::uint32_t>();
  if (bits % 2 == 0) return body.template operator()<std::uint16_t>();
  return body.template operator()<std::uint8_t>();
}

}  // namespace spectx::cu
