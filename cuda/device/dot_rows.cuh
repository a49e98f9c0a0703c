// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "vec.cuh"
#include "warp.cuh"

// Products of a few queries with scattered rows, and weighted sums of such rows: what attention and
// scores are made of. A row is read by a group of neighbouring lanes, kElements at a time.
namespace spectx::cu::device {

inline constexpr int kMostDim = 256;  // of a head

/// Loads of a lane that cover the widest row.
template <int kElements>
inline constexpr int kLoads = (kMostDim + kElements * kWarpSize - 1) / (kElements * kWarpSize);

/// How the lanes of a block lie over rows of `dim` elements, kElements to a load.
struct LaneGrid {
  int loads;   // of a row
  int lanes;   // that share a row, a power of two
  int lane;    // among them
  int row;     // the first row of this thread
  int stride;  // rows between its rows

  __device__ LaneGrid(int dim, int elements) {
    loads = dim / elements;
    lanes = 1;
    while (lanes < kWarpSize && lanes < loads) lanes *= 2;
    const int rows = kWarpSize / lanes;  // of a warp at once
    lane = lane_index() % lanes;
    row = warp_index() * rows + lane_index() / lanes;
    stride = warp_count() * rows;
  }
};

/// products[q * product_stride + i] = queries[q] . row i, for `count` rows. `row_at(i)` gives the
/// address of row i; queries are [kQueries, query_stride] floats in shared memory. Every thread of
/// the block calls; a product's bits depend on its row and query alone.
template <class T, int kElements, int kQueries, class RowAt>
__device__ void dot_rows(const float* queries, int query_stride, int dim, int count, RowAt row_at,
                         float* products, int product_stride) {
  constexpr int kUnroll = kElements == 1 ? 1 : 4;  // rows in flight a thread
  using V = Vec<T, kElements>;
  const LaneGrid grid(dim, kElements);
  float q[kQueries][kLoads<kElements>][kElements];
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
#pragma unroll
    for (int load = 0; load < kLoads<kElements>; ++load) {
      const int at = load * grid.lanes + grid.lane;
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        q[i][load][e] = at < grid.loads ? queries[i * query_stride + at * kElements + e] : 0.0F;
      }
    }
  }
  // All lanes of a warp take part in its sums, so the loop ends for all at once.
  const int first_of_warp = grid.row - lane_index() / grid.lanes;
  for (int base = 0; first_of_warp + base < count; base += kUnroll * grid.stride) {
    V row[kUnroll][kLoads<kElements>];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = grid.row + base + u * grid.stride;
#pragma unroll
      for (int load = 0; load < kLoads<kElements>; ++load) {
        const int at = load * grid.lanes + grid.lane;
        row[u][load] = zero_vec<T, kElements>();
        if (i < count && at < grid.loads) {
          row[u][load] = load_vec<T, kElements>(row_at(i) + at * kElements);
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = grid.row + base + u * grid.stride;
      float sum[kQueries];
#pragma unroll
      for (int j = 0; j < kQueries; ++j) sum[j] = 0;
#pragma unroll
      for (int load = 0; load < kLoads<kElements>; ++load) {
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          const float x = row[u][load][e];
#pragma unroll
          for (int j = 0; j < kQueries; ++j) sum[j] = fmaf(q[j][load][e], x, sum[j]);
        }
      }
#pragma unroll
      for (int j = 0; j < kQueries; ++j) sum[j] = group_sum(sum[j], grid.lanes);
      if (grid.lane == 0 && i < count) {
#pragma unroll
        for (int j = 0; j < kQueries; ++j) products[j * product_stride + i] = sum[j];
      }
    }
  }
}

/// A thread's share of sum_i weights[q][i] row i.
template <int kElements, int kQueries>
struct RowSum {
  float value[kQueries][kLoads<kElements>][kElements];

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < kQueries; ++j) scale(j, 0);
  }
  __device__ void scale(int query, float factor) {
#pragma unroll
    for (int load = 0; load < kLoads<kElements>; ++load) {
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        value[query][load][e] = factor == 0 ? 0.0F : value[query][load][e] * factor;
      }
    }
  }

  /// Adds `count` rows; weights are [kQueries, weight_stride] floats in shared memory.
  template <class T, class RowAt>
  __device__ void add(const float* weights, int weight_stride, int dim, int count, RowAt row_at) {
    constexpr int kUnroll = kElements == 1 ? 1 : 4;
    const LaneGrid grid(dim, kElements);
    for (int base = grid.row; base < count; base += kUnroll * grid.stride) {
      Vec<T, kElements> row[kUnroll][kLoads<kElements>];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = base + u * grid.stride;
#pragma unroll
        for (int load = 0; load < kLoads<kElements>; ++load) {
          const int at = load * grid.lanes + grid.lane;
          row[u][load] = zero_vec<T, kElements>();
          if (i < count && at < grid.loads) {
            row[u][load] = load_vec<T, kElements>(row_at(i) + at * kElements);
          }
        }
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = base + u * grid.stride;
        if (i >= count) break;
#pragma unroll
        for (int j = 0; j < kQueries; ++j) {
          const float weight = weights[j * weight_stride + i];
#pragma unroll
          for (int load = 0; load < kLoads<kElements>; ++load) {
#pragma unroll
            for (int e = 0; e < kElements; ++e) {
              value[j][load][e] = fmaf(weight, row[u][load][e], value[j][load][e]);
            }
          }
        }
      }
    }
  }

  /// shared[(warp * kQueries + q) * dim + d] = the warp's share, for the block to add up in the
  /// order of its warps.
  __device__ void store(float* shared, int dim) {
    const LaneGrid grid(dim, kElements);
#pragma unroll
    for (int j = 0; j < kQueries; ++j) {
#pragma unroll
      for (int load = 0; load < kLoads<kElements>; ++load) {
        const int at = load * grid.lanes + grid.lane;
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          float sum = value[j][load][e];
          for (int step = grid.lanes; step < kWarpSize; step *= 2) {
            sum += __shfl_xor_sync(kAllLanes, sum, step);
          }
          if (lane_index() < grid.lanes && at < grid.loads) {
            shared[(warp_index() * kQueries + j) * dim + at * kElements + e] = sum;
          }
        }
      }
    }
  }
};

}  // namespace spectx::cu::device
