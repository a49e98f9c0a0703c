// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/mma.cuh"
#include "device/warp.cuh"
#include "kv_rows.cuh"

// The ranks that a block of attend takes at a time, on tensor cores: each warp multiplies the keys
// of its own ranks, and adds up its own dims of all values.
namespace spectx::cu::attend {

inline constexpr int kBlockThreads = 128;
inline constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;
inline constexpr int kChunkRanks = 16;  // of a warp: the height of a tile of the tensor cores
inline constexpr int kTileRanks = kBlockWarps * kChunkRanks;
inline constexpr int kQueries = 8;                   // the width of a tile of the tensor cores
inline constexpr int kVecElements = 8;               // 16 bytes
inline constexpr int kScoreStride = kTileRanks + 4;  // neighbouring queries in other banks

/// K and V of a tile in shared memory, rows padded so that 8 neighbours lie in different banks.
template <class T, int kDim>
struct Tile {
  static constexpr int kStride = kDim + kVecElements;
  static constexpr int kRowVecs = kDim / kVecElements;
  static constexpr int kElements = 2 * kTileRanks * kStride;
  T* data;

  __device__ T* key(int rank, int d) const { return data + rank * kStride + d; }
  __device__ T* value(int rank, int d) const { return data + (kTileRanks + rank) * kStride + d; }
  /// Starts to copy the first `count` rows of the warp, zeros after them; lane i and i +
  /// kChunkRanks have the address of row i.
  __device__ void start_load(const std::byte* row, int count, index_t v_offset) const {
    const int first = device::warp_index() * kChunkRanks;
#pragma unroll
    for (int i = 0; i < kRowVecs / 2; ++i) {
      const int n = i * device::kWarpSize + device::lane_index();
      const int rank = n / kRowVecs;
      const int vec = n % kRowVecs;
      const auto at =
          __shfl_sync(device::kAllLanes, reinterpret_cast<unsigned long long>(row), rank);
      const std::byte* const from =
          reinterpret_cast<const std::byte*>(at) + vec * device::kVecBytes;
      device::start_copy_or_zeros(key(first + rank, vec * kVecElements), from, rank < count);
      device::start_copy_or_zeros(value(first + rank, vec * kVecElements), from + v_offset,
                                  rank < count);
    }
    static_assert(kRowVecs % 2 == 0 && device::kWarpSize == 2 * kChunkRanks);
  }
};

/// scores [kQueries, kScoreStride]: the products of the warp's ranks, times `scale`; -inf for ranks
/// of the tile from `count` on.
template <class T, int kDim>
__device__ void multiply_keys(const Tile<T, kDim>& tile, const device::MmaRight (&q)[kDim / 16],
                              float scale, int count, float* scores) {
  const int lane = device::lane_index();
  const int first = device::warp_index() * kChunkRanks;
  device::MmaSum even, odd;
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    device::MmaLeft keys;
    device::load_matrices(tile.key(first + lane % 16, k * 16 + lane / 16 * 8), keys.part);
    device::multiply_add(k % 2 == 0 ? even : odd, keys, q[k], T{});
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int rank = first + lane / 4 + i / 2 * 8;
    const int query = lane % 4 * 2 + i % 2;
    scores[query * kScoreStride + rank] =
        rank < count ? (even.value[i] + odd.value[i]) * scale : -INFINITY;
  }
}

/// What a block knows of its queries after some ranks: of query lane / 4 the largest score and the
/// weight of all relative to it, the same in every warp; of queries lane % 4 * 2 + j the sums of
/// the warp's dims.
template <class T, int kDim>
struct State {
  static constexpr int kParts = (kDim / 16 + kBlockWarps - 1) / kBlockWarps;
  float largest, weight;
  device::MmaSum sums[kParts];

  /// The first of 16 dims of a part; kDim or more: the warp has no such part.
  static __device__ int dim(int part) { return (part * kBlockWarps + device::warp_index()) * 16; }
  /// The two numbers of the queries whose sums the lane has.
  static __device__ void share(float own, float (&of_sums)[2]) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      of_sums[j] = __shfl_sync(device::kAllLanes, own, (device::lane_index() % 4 * 2 + j) * 4);
    }
  }
  static __device__ float base(float largest) { return largest == -INFINITY ? 0.0F : largest; }

  __device__ void clear() {
    largest = -INFINITY;
    weight = 0;
#pragma unroll
    for (int part = 0; part < kParts; ++part) sums[part] = {};
  }
  /// A tile of `count` ranks. The weight stays the lane's own part until add_up.
  __device__ void add(const Tile<T, kDim>& tile, const float* scores, int count) {
    const int lane = device::lane_index();
    const float* const own = scores + lane / 4 * kScoreStride + lane % 4 * 2;
    float2 score[kTileRanks / 8];
    float next = largest;
#pragma unroll
    for (int i = 0; i < kTileRanks / 8; ++i) {
      score[i] = *reinterpret_cast<const float2*>(own + 8 * i);
      next = fmaxf(next, fmaxf(score[i].x, score[i].y));
    }
    next = device::group_max(next, 4);
    const float factor = device::exp2_fast(largest - base(next));
    device::MmaRight weights[kBlockWarps];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kTileRanks / 8; ++i) {
      const float low = device::exp2_fast(score[i].x - base(next));
      const float high = device::exp2_fast(score[i].y - base(next));
      sum += low + high;
      weights[i / 2].part[i % 2] = device::pack(low, high, T{});
    }
    weight = fmaf(weight, factor, sum);
    largest = next;
    float factors[2];
    share(factor, factors);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      if (dim(part) >= kDim) break;
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[part].value[i] *= factors[i % 2];
#pragma unroll
      for (int w = 0; w < kBlockWarps; ++w) {
        if (w * kChunkRanks >= count) break;
        device::MmaLeft values;
        device::load_matrices_transposed(
            tile.value(w * kChunkRanks + lane % 8 + lane / 16 * 8, dim(part) + lane / 8 % 2 * 8),
            values.part);
        device::multiply_add(sums[part], values, weights[w], T{});
      }
    }
  }
  /// The weight of all lanes.
  __device__ void add_up() { weight = device::group_sum(weight, 4); }
  /// Takes in the next split, added up. combine() does the same from memory, bit for bit.
  __device__ void fold(const State& split) {
    const float next = fmaxf(largest, split.largest);
    const float factor = device::exp2_fast(largest - base(next));
    const float own = device::exp2_fast(split.largest - base(next));
    weight = __fmaf_rn(weight, factor, __fmul_rn(split.weight, own));
    largest = next;
    float factors[2], shares[2];
    share(factor, factors);
    share(own, shares);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[part].value[i] = __fmaf_rn(sums[part].value[i], factors[i % 2],
                                        __fmul_rn(split.sums[part].value[i], shares[i % 2]));
      }
    }
  }
  /// Calls body(query, dim, sum) for the lane's sums.
  template <class Body>
  __device__ void for_sums(Body body) const {
    const int lane = device::lane_index();
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      if (dim(part) >= kDim) break;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        body(lane % 4 * 2 + i % 2, dim(part) + i / 2 * 8 + lane / 4, sums[part].value[i]);
      }
    }
  }
};

}  // namespace spectx::cu::attend
