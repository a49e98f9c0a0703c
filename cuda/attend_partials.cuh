// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attend_chunk.cuh"

// How attend's warps and blocks put together what they found of a row.
namespace spectx::cu::attend {

inline constexpr int kMostSplits = 60;  // 64 rows of 32 heads fit in kMostPartialBytes

struct Params {
  Queries q;
  KVView kv;
  BatchView batch;
  index_t first_row;  // of the launch
  index_t most_rows;  // of an item; another kernel has those with more
  int query_heads, group, query_tiles;
  float scale_log2;
  float* partials;      // [rows of the launch, query_heads, kMostSplits] of {largest, weight}
  float* partial_v;     // the same, of [v_dim]
  std::uint32_t* done;  // [rows of the launch, KV heads, query tiles] blocks
  std::byte* out;
  index_t out_stride, out_head_stride;
};

struct Splits {
  std::int32_t visible, ranks, count;

  /// Of a multiple of `step` ranks each.
  __device__ Splits(std::int32_t visible_ranks, std::int32_t step) : visible(visible_ranks) {
    ranks = max((visible + step * kMostSplits - 1) / (step * kMostSplits), 1) * step;
    count = (visible + ranks - 1) / ranks;
  }
};

/// Up to kQueries query heads of one KV head and batch row.
struct Place {
  index_t row, batch_row, item, head;
  int tile, first_head, queries;

  __device__ explicit Place(const Params& p)
      : row(blockIdx.z), batch_row(p.first_row + blockIdx.z) {
    item = p.batch.item[batch_row];
    head = static_cast<int>(blockIdx.y) / p.query_tiles;
    tile = static_cast<int>(blockIdx.y) % p.query_tiles;
    first_head = static_cast<int>(head) * p.group + tile * kQueries;
    queries = min(p.group - tile * kQueries, kQueries);
  }
  __device__ index_t partial(const Params& p, int query, index_t split) const {
    return (row * p.query_heads + first_head + query) * kMostSplits + split;
  }
};

/// What the warps of a block add up, in shared memory.
template <int kDim>
struct BlockSum {
  static constexpr int kStride = kDim + 4;  // the queries of a lane's neighbours in other banks
  static constexpr int kFloats = kQueries * kStride + 2 * kBlockWarps * kQueries;
  float* data;

  __device__ float* sum(int query) const { return data + query * kStride; }
  __device__ float* state(int warp, int query) const {
    return data + kQueries * kStride + 2 * (warp * kQueries + query);
  }
  /// 2^0 is the largest product of the block.
  __device__ float base(int query) const {
    float largest = state(0, query)[0];
#pragma unroll
    for (int w = 1; w < kBlockWarps; ++w) largest = fmaxf(largest, state(w, query)[0]);
    return largest == -INFINITY ? 0.0F : largest;
  }
  __device__ float share(int warp, int query) const {
    return device::exp2_fast(state(warp, query)[0] - base(query));
  }
  /// The warps in ascending order.
  template <class T>
  __device__ void add(const WarpState<T, kDim>& from, int queries) const {
    const int lane = device::lane_index();
    const int warp = device::warp_index();
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float weight = from.weight[j];
#pragma unroll
      for (int step = 4; step < device::kWarpSize; step *= 2) {
        weight += __shfl_xor_sync(device::kAllLanes, weight, step);
      }
      if (lane / 4 == 0) {
        state(warp, lane * 2 + j)[0] = from.largest[j];
        state(warp, lane * 2 + j)[1] = weight;
      }
    }
    __syncthreads();
    for (int w = 0; w < kBlockWarps; ++w) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int query = lane % 4 * 2 + j;
        if (warp != w || query >= queries) continue;
        const float own = share(warp, query);
#pragma unroll
        for (int i = 0; i < kDim / 8; ++i) {
          float& to = sum(query)[i / 2 * 16 + i % 2 * 8 + lane / 4];
          to = fmaf(own, from.sums[i / 2].value[i % 2 * 2 + j], w == 0 ? 0.0F : to);
        }
      }
      __syncthreads();
    }
  }
  __device__ void write_partial(const Params& p, const Place& place, index_t split) const {
    constexpr int kVecs = kDim / 4;
    for (int i = static_cast<int>(threadIdx.x); i < place.queries * kVecs; i += kBlockThreads) {
      const int query = i / kVecs;
      const int d = i % kVecs * 4;
      const index_t to = place.partial(p, query, split);
      *reinterpret_cast<float4*>(p.partial_v + to * kDim + d) =
          *reinterpret_cast<const float4*>(sum(query) + d);
      if (d != 0) continue;
      float weight = 0;
      for (int w = 0; w < kBlockWarps; ++w) {
        weight = fmaf(share(w, query), state(w, query)[1], weight);
      }
      *reinterpret_cast<float2*>(p.partials + 2 * to) = {weight > 0 ? base(query) : -INFINITY,
                                                         weight};
    }
    __syncthreads();
  }
};

/// The last block of a row and head: its splits in ascending order. `shares` [kQueries,
/// kMostSplits], `weights` [kQueries].
template <class T, int kDim>
__device__ void combine(const Params& p, const Place& place, int splits, float* shares,
                        float* weights) {
  for (int query = device::warp_index(); query < place.queries; query += kBlockWarps) {
    const auto* const partials =
        reinterpret_cast<const float2*>(p.partials) + place.partial(p, query, 0);
    constexpr int kMine = (kMostSplits + device::kWarpSize - 1) / device::kWarpSize;
    float2 mine[kMine];
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int s = i * device::kWarpSize + device::lane_index();
      mine[i] = s < splits ? __ldcg(partials + s) : float2{-INFINITY, 0};
      largest = fmaxf(largest, mine[i].x);
    }
    largest = device::group_max(largest);
    float weight = 0;
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int s = i * device::kWarpSize + device::lane_index();
      const float share = s < splits ? device::exp2_fast(mine[i].x - largest) : 0.0F;
      if (s < splits) shares[query * kMostSplits + s] = share;
      weight = fmaf(share, mine[i].y, weight);
    }
    weight = device::group_sum(weight);
    if (device::lane_index() == 0) weights[query] = weight;
  }
  __syncthreads();
  constexpr int kVecs = kDim / 4;
  for (int i = static_cast<int>(threadIdx.x); i < place.queries * kVecs; i += kBlockThreads) {
    const int query = i / kVecs;
    const int d = i % kVecs * 4;
    const auto* const from =
        reinterpret_cast<const float4*>(p.partial_v + place.partial(p, query, 0) * kDim + d);
    constexpr int kBatch = 16;  // loads that are in flight
    float value[4] = {0, 0, 0, 0};
    for (int first = 0; first < splits; first += kBatch) {
      float4 own[kBatch];
#pragma unroll
      for (int n = 0; n < kBatch; ++n) {
        own[n] = first + n < splits ? __ldcg(from + (first + n) * kVecs) : float4{0, 0, 0, 0};
      }
#pragma unroll
      for (int n = 0; n < kBatch; ++n) {
        if (first + n >= splits) break;
        const float share = shares[query * kMostSplits + first + n];
        value[0] = fmaf(share, own[n].x, value[0]);
        value[1] = fmaf(share, own[n].y, value[1]);
        value[2] = fmaf(share, own[n].z, value[2]);
        value[3] = fmaf(share, own[n].w, value[3]);
      }
    }
    T* const out = reinterpret_cast<T*>(p.out) + place.batch_row * p.out_stride +
                   (place.first_head + query) * p.out_head_stride + d;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      out[e] = device::from_float<T>(splits == 0 ? 0.0F : value[e] / weights[query]);
    }
  }
}

}  // namespace spectx::cu::attend
