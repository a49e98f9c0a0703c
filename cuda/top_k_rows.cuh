// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/vec.cuh"
#include "device/warp.cuh"
#include "kernels.hpp"
#include "views.cuh"

// The rows of scores that top_k reads, and a block's part of one.
namespace spectx::cu::top_k {

inline constexpr int kThreads = 1024;
inline constexpr int kVecScores = 4;
inline constexpr int kVecs = 4;  // loads of a thread that are in flight
inline constexpr int kThreadScores = kVecs * kVecScores;
inline constexpr int kWarpScores = device::kWarpSize * kThreadScores;  // neighbours
inline constexpr int kTileScores = kThreads * kThreadScores;

struct Params {
  Rows<const float> scores;
  BatchView batch;
  std::int32_t budget, sinks, window;
  const std::int32_t *budgets, *head_of_kv_head;  // budgets may be null
  std::int32_t *ids, *counts;
  index_t max_budget, kv_heads;
  std::int32_t* saw_nan;
  index_t first_row;     // of the launch
  std::uint32_t cached;  // scores of a block that its shared memory holds
};

/// Bits that order like the scores: -0 equals 0, and NaN is the lowest. 0 stands for no score.
__device__ inline std::uint32_t order_of(float score) {
  constexpr std::uint32_t kSign = 0x80000000U;
  const std::uint32_t bits = __float_as_uint(score + 0.0F);
  const auto all_if_negative = static_cast<std::uint32_t>(static_cast<std::int32_t>(bits) >> 31);
  return score != score ? 1U : bits ^ (all_if_negative | kSign);
}
inline constexpr std::uint32_t kNaNOrder = 1;

/// What one item and KV head of the target asks for.
struct Row {
  index_t index;                            // of the batch
  std::int32_t length, budget, begin, end;  // the middle is [begin, end)
  bool selects;
  const float* scores;

  explicit __device__ Row(const Params& p) : index(p.first_row + blockIdx.y) {
    const index_t item = index / p.kv_heads;
    selects = p.batch.selects[item] != 0;
    length = p.batch.length[item];
    budget = p.budgets == nullptr ? p.budget : p.budgets[item];
    begin = p.sinks;
    end = length - p.window;
    scores = p.scores.row(item, serving_head(p.head_of_kv_head, index % p.kv_heads));
  }
  /// A budget of 0: the item's selection stays as it is.
  __device__ bool is_done() const { return budget == 0; }
  /// Otherwise it takes everything.
  __device__ bool has_choice() const { return selects && length > budget; }
  /// Of the middle.
  __device__ std::uint32_t wanted(const Params& p) const {
    return static_cast<std::uint32_t>(budget - p.sinks - p.window);
  }
};

/// A block's part of the middle of a row. Starts at a vector, so that the first `skip` are not of
/// the middle.
struct Chunk {
  std::uint32_t skip, count;
  std::int32_t first_id;
  const float* scores;

  __device__ explicit Chunk(const Row& row) {
    const auto at = reinterpret_cast<std::uintptr_t>(row.scores + row.begin) / sizeof(float);
    const auto before = static_cast<std::uint32_t>(at % kVecScores);
    const std::uint32_t all = static_cast<std::uint32_t>(row.end - row.begin) + before;
    const std::uint32_t step = gridDim.x * kVecScores;
    const std::uint32_t size = (all / step + (all % step != 0 ? 1 : 0)) * kVecScores;
    const std::uint32_t offset = min(blockIdx.x * size, all);
    skip = blockIdx.x == 0 ? before : 0;
    count = min(size, all - offset);
    scores = row.scores + row.begin - before + offset;
    first_id = row.begin - static_cast<std::int32_t>(before) + static_cast<std::int32_t>(offset);
  }
  /// The order of a score, or 0.
  __device__ std::uint32_t order_at(std::uint32_t at) const {
    return at >= skip && at < count ? order_of(scores[at]) : 0;
  }
};

/// A chunk whose first orders are in shared memory.
struct CachedChunk : Chunk {
  std::uint32_t* cache;
  std::uint32_t cached;  // a multiple of kWarpScores

  /// The first of the warp's scores of a tile.
  static __device__ std::uint32_t first_of_warp(std::uint32_t tile) {
    return tile + static_cast<std::uint32_t>(device::warp_index()) * kWarpScores;
  }
  /// The first of vector v of the thread.
  static __device__ std::uint32_t first_of_vec(std::uint32_t tile, int v) {
    constexpr int kWarpVecs = device::kWarpSize * kVecScores;
    return first_of_warp(tile) +
           static_cast<std::uint32_t>(v * kWarpVecs + device::lane_index() * kVecScores);
  }
  __device__ bool is_cached(std::uint32_t tile) const {
    return first_of_warp(tile) + kWarpScores <= cached;
  }
  /// The orders of the thread's scores of a tile, from device memory; 0 where there is none.
  __device__ void load_tile(std::uint32_t tile, std::uint32_t (&order)[kVecs][kVecScores]) const {
    const std::uint32_t first = first_of_warp(tile);
    if (first >= skip && first + kWarpScores <= count) {
      device::Vec<float, kVecScores> vec[kVecs];
#pragma unroll
      for (int v = 0; v < kVecs; ++v) {
        vec[v] = device::load_vec<float, kVecScores>(scores + first_of_vec(tile, v));
      }
#pragma unroll
      for (int v = 0; v < kVecs; ++v) {
#pragma unroll
        for (int i = 0; i < kVecScores; ++i) order[v][i] = order_of(vec[v].element[i]);
      }
      return;
    }
#pragma unroll
    for (int v = 0; v < kVecs; ++v) {
#pragma unroll
      for (int i = 0; i < kVecScores; ++i) {
        order[v][i] = order_at(first_of_vec(tile, v) + static_cast<std::uint32_t>(i));
      }
    }
  }
  /// The same, from the cache if it has them.
  __device__ void reload_tile(std::uint32_t tile, std::uint32_t (&order)[kVecs][kVecScores]) const {
    if (!is_cached(tile)) return load_tile(tile, order);
#pragma unroll
    for (int v = 0; v < kVecs; ++v) reload(first_of_vec(tile, v), order[v]);
  }
  /// The orders of a vector.
  __device__ void reload(std::uint32_t first, std::uint32_t (&order)[kVecScores]) const {
    if (first < cached) {
      const auto kept = device::load_vec<std::uint32_t, kVecScores>(cache + first);
#pragma unroll
      for (int i = 0; i < kVecScores; ++i) order[i] = kept.element[i];
      return;
    }
#pragma unroll
    for (int i = 0; i < kVecScores; ++i) {
      order[i] = order_at(first + static_cast<std::uint32_t>(i));
    }
  }
  __device__ std::uint32_t reload(std::uint32_t at) const {
    return at < cached ? cache[at] : order_at(at);
  }
};

}  // namespace spectx::cu::top_k
