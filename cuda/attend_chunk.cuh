// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/mma.cuh"
#include "device/warp.cuh"
#include "kv_rows.cuh"

// The ranks that a warp of attend takes at a time, on tensor cores.
namespace spectx::cu::attend {

inline constexpr int kBlockThreads = 128;
inline constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;
inline constexpr int kChunkRanks = 16;  // the height of a tile of the tensor cores
inline constexpr int kQueries = 8;      // its width
inline constexpr int kVecElements = 8;  // 16 bytes
/// K and V of a warp's chunk in shared memory, rows padded so that 8 neighbours lie in different
/// banks.
template <class T, int kDim>
struct Chunk {
  static constexpr int kStages = kDim > 128 ? 1 : 2;  // chunks of a warp that are on their way
  static constexpr int kTileRanks = kStages * kBlockWarps * kChunkRanks;  // of a block
  static constexpr int kBlocks = kDim > 128 ? 2 : 3;  // that share a multiprocessor
  static constexpr int kStride = kDim + kVecElements;
  static constexpr int kRowVecs = kDim / kVecElements;
  static constexpr int kElements = 2 * kChunkRanks * kStride;
  T* data;

  __device__ T* key(int rank, int d) const { return data + rank * kStride + d; }
  __device__ T* value(int rank, int d) const { return data + (kChunkRanks + rank) * kStride + d; }
  /// Starts to copy `count` rows, zeros after them; lane `first_lane` + i has the address of row i.
  __device__ void start_load(const std::byte* row, int first_lane, int count, index_t v_offset) {
#pragma unroll
    for (int i = 0; i < kRowVecs / 2; ++i) {
      const int n = i * device::kWarpSize + device::lane_index();
      const int rank = n / kRowVecs;
      const int vec = n % kRowVecs;
      const auto at = __shfl_sync(device::kAllLanes, reinterpret_cast<unsigned long long>(row),
                                  first_lane + rank);
      const std::byte* const from =
          reinterpret_cast<const std::byte*>(at) + vec * device::kVecBytes;
      device::start_copy_or_zeros(key(rank, vec * kVecElements), from, rank < count);
      device::start_copy_or_zeros(value(rank, vec * kVecElements), from + v_offset, rank < count);
    }
    static_assert(kRowVecs % 2 == 0);
  }
};

/// What a warp knows of its queries after some chunks; of a sum a lane holds the queries
/// lane % 4 * 2 + j.
template <class T, int kDim>
struct WarpState {
  float largest[2], weight[2];  // the weight of the lane's own ranks
  device::MmaSum sums[kDim / 16];

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      largest[j] = -INFINITY;
      weight[j] = 0;
    }
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) sums[d] = {};
  }
  __device__ void add(const Chunk<T, kDim>& chunk, const device::MmaRight (&q)[kDim / 16],
                      float scale_log2, int count) {
    const int lane = device::lane_index();
    device::MmaSum even, odd;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      device::MmaLeft keys;
      device::load_matrices(chunk.key(lane % 16, k * 16 + lane / 16 * 8), keys.part);
      device::multiply_add(k % 2 == 0 ? even : odd, keys, q[k], T{});
    }
    float weights[4], factor[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const bool is_low = lane / 4 < count;
      const bool is_high = lane / 4 + 8 < count;
      const float low = is_low ? (even.value[j] + odd.value[j]) * scale_log2 : -INFINITY;
      const float high = is_high ? (even.value[2 + j] + odd.value[2 + j]) * scale_log2 : -INFINITY;
      float next = fmaxf(fmaxf(low, high), largest[j]);
#pragma unroll
      for (int step = 4; step < device::kWarpSize; step *= 2) {
        next = fmaxf(next, __shfl_xor_sync(device::kAllLanes, next, step));
      }
      const float base = next == -INFINITY ? 0.0F : next;
      factor[j] = device::exp2_fast(largest[j] - base);
      weights[j] = device::exp2_fast(low - base);
      weights[2 + j] = device::exp2_fast(high - base);
      weight[j] = fmaf(weight[j], factor[j], weights[j] + weights[2 + j]);
      largest[j] = next;
    }
    const device::MmaRight right{{device::transpose(device::pack(weights[0], weights[1], T{})),
                                  device::transpose(device::pack(weights[2], weights[3], T{}))}};
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[d].value[i] *= factor[i % 2];
      device::MmaLeft values;
      device::load_matrices_transposed(
          chunk.value(lane % 8 + lane / 16 * 8, d * 16 + lane / 8 % 2 * 8), values.part);
      device::multiply_add(sums[d], values, right, T{});
    }
  }
};

}  // namespace spectx::cu::attend
