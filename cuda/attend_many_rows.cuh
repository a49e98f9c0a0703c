// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "attend.hpp"
#include "device/warp.cuh"
#include "kv_rows.cuh"

// What kernels for items with many rows share.
namespace spectx::cu::attend {

struct ManyRows {
  static constexpr float kLog2E = 1.4426950408889634F;

  Queries q;
  KVView kv;
  BatchView batch;
  std::int32_t few_rows;
  std::int32_t group;
  float scale_log2;
  bool is_wide;  // rows of q and out can be read and written 16 bytes at a time
  std::byte* out;
  index_t out_stride, out_head_stride;

  ManyRows(const AttendArgs& a, index_t few)
      : q(a.q),
        kv(a.kv),
        batch(view_of(*a.batch)),
        few_rows(static_cast<std::int32_t>(few)),
        group(static_cast<std::int32_t>(a.q.shape[1] / a.kv.kv_heads)),
        scale_log2(kLog2E *
                   (a.scale != 0 ? a.scale : 1 / std::sqrt(static_cast<float>(a.kv.k_dim)))),
        is_wide(is_aligned<half_t>(a.q, 8) && is_aligned<half_t>(a.out, 8)),
        out(static_cast<std::byte*>(a.out.data)),
        out_stride(a.out.strides[0]),
        out_head_stride(a.out.strides[1]) {}
  /// An element of the output of query `n` of an item, of query head 0 of `head`.
  template <class T>
  __device__ T* out_at(index_t row_begin, index_t head, int query, int d) const {
    return reinterpret_cast<T*>(out) + (row_begin + query / group) * out_stride +
           (head * group + query % group) * out_head_stride + d;
  }
  template <class T>
  __device__ const T* q_at(index_t row_begin, index_t head, int query, int d) const {
    return reinterpret_cast<const T*>(q.data) + (row_begin + query / group) * q.stride +
           (head * group + query % group) * q.head_stride + d;
  }
};

/// A block's queries: neighbouring rows of an item with the query heads of one KV head. Query n is
/// row n / group, head n % group.
struct QueryTile {
  index_t item, request, head, row_begin;
  int first, count;  // queries of the item

  __device__ QueryTile(const ManyRows& p, int tile_queries)
      : item(blockIdx.z),
        request(p.batch.request[blockIdx.z]),
        head(blockIdx.y),
        row_begin(p.batch.row_begin[blockIdx.z]) {
    const int rows = p.batch.row_begin[item + 1] - static_cast<int>(row_begin);
    // The longest blocks first.
    first = (static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x)) * tile_queries;
    count = rows <= p.few_rows ? 0 : min(rows * p.group - first, tile_queries);
  }
  /// Ranks that a query of the tile sees.
  __device__ int seen_by(const ManyRows& p, const KVRows& kv, int query) const {
    return kv.visible(p.batch.position[row_begin + (first + query) / p.group]);
  }
};

/// Reads 8 neighbours of a query, zeros where there is none.
template <class T>
__device__ device::Vec<T, 8> load_query(const ManyRows& p, const QueryTile& tile, int query,
                                        int d) {
  device::Vec<T, 8> vec = device::zero_vec<T, 8>();
  if (query >= tile.count) return vec;
  const T* const from = p.q_at<T>(tile.row_begin, tile.head, tile.first + query, d);
  if (p.is_wide) return device::load_vec<T, 8>(from);
#pragma unroll
  for (int e = 0; e < 8; ++e) vec.element[e] = from[e];
  return vec;
}

/// Writes two neighbours of a query's output.
template <class T>
__device__ void store_pair(const ManyRows& p, const QueryTile& tile, int query, int d, float first,
                           float second) {
  T* const to = p.out_at<T>(tile.row_begin, tile.head, tile.first + query, d);
  const device::Vec<T, 2> pair{{device::from_float<T>(first), device::from_float<T>(second)}};
  if (p.is_wide) {
    device::store_vec(to, pair);
  } else {
    to[0] = pair.element[0];
    to[1] = pair.element[1];
  }
}

inline dim3 grid_of_tiles(const AttendArgs& a, int tile_queries) {
  const index_t queries = a.batch->max_rows_per_item * (a.q.shape[1] / a.kv.kv_heads);
  return dim3(static_cast<unsigned>(div_up(queries, tile_queries)),
              static_cast<unsigned>(a.kv.kv_heads), static_cast<unsigned>(a.batch->items.size()));
}

/// Whether the device and the sizes have the kernel of attend_warpgroups.cu.
bool has_warpgroups_kernel(const AttendArgs& args, const Launch& on) noexcept;
void launch_attend_warpgroups(const AttendArgs& args, const ManyRows& params, const Launch& on);

}  // namespace spectx::cu::attend
