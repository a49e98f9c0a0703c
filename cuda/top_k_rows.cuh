// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/vec.cuh"
#include "kernels.hpp"
#include "views.cuh"

// The rows of scores that top_k reads, and a block's part of one.
namespace spectx::cu::top_k {

inline constexpr int kBlockThreads = 512;
inline constexpr int kThreadScores = 8;  // loads of a thread that are in flight, two vectors
inline constexpr int kTileScores = kBlockThreads * kThreadScores;
inline constexpr int kVecScores = 4;
inline constexpr int kMostChunks = 32;  // of a row: a lane each
inline constexpr int kTopBits = 12;     // of the first digit; two lower ones follow
inline constexpr int kLowBits = 10;
inline constexpr int kDigits = 1 << kTopBits;
inline constexpr int kLowDigits = 1 << kLowBits;
inline constexpr int kTopShift = 2 * kLowBits;
static_assert(kTopBits + kTopShift == 32);
inline constexpr int kRowWords = kDigits + 32;  // counted digits, chunks that are done
inline constexpr int kCached = 8192;            // candidates in shared memory: more are read again

/// A score that reaches the digit of the k-th.
struct Candidate {
  std::uint32_t order;
  std::int32_t id;
};

struct Params {
  Rows<const float> scores;
  BatchView batch;
  std::int32_t budget, sinks, window;
  const std::int32_t *budgets, *head_of_kv_head;  // budgets may be null
  std::int32_t *ids, *counts;
  index_t max_budget, kv_heads;
  std::int32_t* saw_nan;
  index_t first_row;          // of the launch
  std::uint32_t* zeros;       // [rows of the launch, kRowWords]
  Candidate* lists;           // [rows of the launch, list_stride], a chunk's where its scores are
  std::uint32_t* list_sizes;  // [rows of the launch, kMostChunks]
  index_t list_stride;
};

/// Bits that order like the scores: -0 equals 0, and NaN, the lowest, is 0.
__device__ inline std::uint32_t order_of(float score) {
  constexpr std::uint32_t kSign = 0x80000000U;
  constexpr std::uint32_t kInfinity = 0x7f800000U;
  const std::uint32_t bits = __float_as_uint(score);
  if ((bits & ~kSign) > kInfinity) return 0;
  if ((bits & ~kSign) == 0) return kSign;
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

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
  std::uint32_t offset, size;  // among the chunks of the row
  std::uint32_t skip, count;
  std::int32_t first_id;
  const float* scores;

  __device__ Chunk(const Row& row, unsigned index) {
    const auto at = reinterpret_cast<std::uintptr_t>(row.scores + row.begin) / sizeof(float);
    const auto before = static_cast<std::uint32_t>(at % kVecScores);
    const std::uint32_t all = static_cast<std::uint32_t>(row.end - row.begin) + before;
    size = (all / gridDim.x / kThreadScores + 1) * kThreadScores;
    offset = min(index * size, all);
    skip = index == 0 ? before : 0;
    count = min(size, all - offset);
    scores = row.scores + row.begin - before + offset;
    first_id = row.begin - static_cast<std::int32_t>(before) + static_cast<std::int32_t>(offset);
  }
};

/// The thread's scores of a tile that starts at `tile`: neighbours, or vectors that the block
/// shares out. Returns which of them are there, a bit each.
template <bool kNeighbours>
__device__ unsigned load_scores(const Chunk& c, std::uint32_t tile, float (&score)[kThreadScores]) {
  constexpr int kVecs = kThreadScores / kVecScores;
  constexpr unsigned kAll = (1U << kThreadScores) - 1;
  const std::uint32_t first = tile + threadIdx.x * (kNeighbours ? kThreadScores : kVecScores);
  constexpr std::uint32_t kStep = kNeighbours ? kVecScores : kVecScores * kBlockThreads;
  if (tile >= c.skip && tile + kTileScores <= c.count) {
    device::Vec<float, kVecScores> vec[kVecs];
#pragma unroll
    for (int v = 0; v < kVecs; ++v) {
      vec[v] = device::load_vec<float, kVecScores>(c.scores + first + v * kStep);
    }
#pragma unroll
    for (int i = 0; i < kThreadScores; ++i) {
      score[i] = vec[i / kVecScores][i % kVecScores];
    }
    return kAll;
  }
  unsigned there = 0;
#pragma unroll
  for (int i = 0; i < kThreadScores; ++i) {
    const std::uint32_t at = first + i / kVecScores * kStep + i % kVecScores;
    const bool is_there = at >= c.skip && at < c.count;
    score[i] = is_there ? c.scores[at] : 0.0F;
    there |= is_there ? 1U << i : 0U;
  }
  return there;
}

/// Calls body(tile, scores, there) for the tiles of a chunk; the next one is on its way.
template <bool kNeighbours, class Body>
__device__ void for_tiles(const Chunk& c, Body body) {
  float next[kThreadScores];
  unsigned next_there = load_scores<kNeighbours>(c, 0, next);
  for (std::uint32_t tile = 0; tile < c.count; tile += kTileScores) {
    float scores[kThreadScores];
#pragma unroll
    for (int i = 0; i < kThreadScores; ++i) scores[i] = next[i];
    const unsigned there = next_there;
    if (tile + kTileScores < c.count) {
      next_there = load_scores<kNeighbours>(c, tile + kTileScores, next);
    }
    body(tile, scores, there);
  }
}

}  // namespace spectx::cu::top_k
