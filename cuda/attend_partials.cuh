// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attend_tile.cuh"

// How attend's blocks put together what they found of a row.
namespace spectx::cu::attend {

inline constexpr int kMostSplits = 48;  // of 8 KV heads: no more than 3 blocks a multiprocessor

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
  bool leaves_room;  // on the device, for the blocks of the next kernel
};

struct Splits {
  static constexpr std::int32_t kStep = 2 * kTileRanks;  // of ranks: a split is some of them
  std::int32_t visible, ranks, count;

  __device__ explicit Splits(std::int32_t visible_ranks) : visible(visible_ranks) {
    constexpr std::int32_t kMost = kStep * kMostSplits;
    ranks = (visible / kMost + (visible % kMost == 0 ? 0 : 1)) * kStep;
    ranks = max(ranks, kStep);
    count = visible / ranks + (visible % ranks == 0 ? 0 : 1);
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
  template <class T>
  __device__ T* out(const Params& p, int query) const {
    return reinterpret_cast<T*>(p.out) + batch_row * p.out_stride +
           (first_head + query) * p.out_head_stride;
  }
};

template <class T, int kDim>
__device__ void write_partial(const Params& p, const Place& place, index_t split,
                              const State<T, kDim>& state) {
  state.for_sums([&](int query, int d, float sum) {
    if (query < place.queries) p.partial_v[place.partial(p, query, split) * kDim + d] = sum;
  });
  const int query = device::lane_index() / 4;
  if (device::warp_index() != 0 || device::lane_index() % 4 != 0 || query >= place.queries) return;
  reinterpret_cast<float2*>(p.partials)[place.partial(p, query, split)] = {state.largest,
                                                                           state.weight};
}

/// What the folded splits of a row give; `splits` 0: zeros.
template <class T, int kDim>
__device__ void write_out(const Params& p, const Place& place, int splits,
                          const State<T, kDim>& state) {
  float weights[2];
  state.share(state.weight, weights);
  state.for_sums([&](int query, int d, float sum) {
    if (query >= place.queries) return;
    place.out<T>(p, query)[d] =
        device::from_float<T>(splits == 0 ? 0.0F : sum / weights[query % 2]);
  });
}

/// How a split is taken in: what was there times `factor`, its own times `share`.
struct Step {
  float factor, share, weight;
};

/// How the splits of each query are taken in; a warp takes a query.
template <class T, int kDim>
__device__ void make_steps(const Params& p, const Place& place, int splits, Step* steps) {
  for (int query = device::warp_index(); query < place.queries; query += kBlockWarps) {
    const auto* const partials =
        reinterpret_cast<const float2*>(p.partials) + place.partial(p, query, 0);
    constexpr int kMine = (kMostSplits + device::kWarpSize - 1) / device::kWarpSize;
    float2 mine[kMine];
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int s = i * device::kWarpSize + device::lane_index();
      mine[i] = s < splits ? __ldcg(partials + s) : float2{-INFINITY, 0};
    }
    float before = -INFINITY;  // the largest of the splits before
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      float largest = device::prefix_max(mine[i].x);
      float previous = __shfl_up_sync(device::kAllLanes, largest, 1);
      previous = device::lane_index() == 0 ? before : fmaxf(before, previous);
      largest = fmaxf(before, largest);
      before = __shfl_sync(device::kAllLanes, largest, device::kWarpSize - 1);
      const int s = i * device::kWarpSize + device::lane_index();
      const float base = State<T, kDim>::base(largest);
      if (s < splits) {
        steps[query * kMostSplits + s] = {device::exp2_fast(previous - base),
                                          device::exp2_fast(mine[i].x - base), mine[i].y};
      }
    }
  }
}

/// The last block of a row and head folds its splits in ascending order. `steps` [kQueries,
/// kMostSplits] shared.
template <class T, int kDim>
__device__ void combine(const Params& p, const Place& place, int splits, Step* steps) {
  constexpr int kVecs = kDim / 4;
  constexpr int kBatch = 16;  // loads that are in flight
  float4 own[kBatch];
  const auto load = [&](int i, int first) {
    const auto* const from = reinterpret_cast<const float4*>(
        p.partial_v + place.partial(p, i / kVecs, 0) * kDim + i % kVecs * 4);
#pragma unroll
    for (int n = 0; n < kBatch; ++n) {
      own[n] = first + n < splits ? __ldcg(from + (first + n) * kVecs) : float4{0, 0, 0, 0};
    }
  };
  const int mine = static_cast<int>(threadIdx.x);
  if (mine < place.queries * kVecs) load(mine, 0);
  make_steps<T, kDim>(p, place, splits, steps);
  __syncthreads();
  for (int i = mine; i < place.queries * kVecs; i += kBlockThreads) {
    const int query = i / kVecs;
    float value[4] = {0, 0, 0, 0};
    float weight = 0;
    for (int first = 0; first < splits; first += kBatch) {
      if (i != mine || first > 0) load(i, first);
#pragma unroll
      for (int n = 0; n < kBatch; ++n) {
        if (first + n >= splits) break;
        const Step step = steps[query * kMostSplits + first + n];
        value[0] = __fmaf_rn(value[0], step.factor, __fmul_rn(own[n].x, step.share));
        value[1] = __fmaf_rn(value[1], step.factor, __fmul_rn(own[n].y, step.share));
        value[2] = __fmaf_rn(value[2], step.factor, __fmul_rn(own[n].z, step.share));
        value[3] = __fmaf_rn(value[3], step.factor, __fmul_rn(own[n].w, step.share));
        weight = __fmaf_rn(weight, step.factor, __fmul_rn(step.weight, step.share));
      }
    }
    T* const out = place.out<T>(p, query) + i % kVecs * 4;
#pragma unroll
    for (int e = 0; e < 4; ++e) out[e] = device::from_float<T>(value[e] / weight);
  }
}

}  // namespace spectx::cu::attend
