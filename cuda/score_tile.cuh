// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/mma.cuh"
#include "score.cuh"

// Products of queries and keys of one half type on tensor cores: what the kernels of score share
// that have them. Products of halves are exact, sums are floats. Roundings are named where a
// compiler might choose, so that all kernels give the same bits.
namespace spectx::cu::score {

inline constexpr int kChunkTokens = 16;  // the height of a tile of the tensor cores
inline constexpr int kQueries = 8;       // its width
inline constexpr float kLog2E = 1.4426950408889634F;

/// A lane's part of a chunk: of two tokens 8 neighbours of every 32 dims, of which a tile of the
/// tensor cores takes 4 at a time. The order of the dims is the lanes' own.
template <int kDim>
struct Keys {
  static constexpr int kSteps = kDim / 16;
  std::uint32_t part[2][kSteps][2];

  __device__ void load(const std::byte* low, const std::byte* high) {
    const int lane = device::lane_index() % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const auto* const row = reinterpret_cast<const uint2*>(i == 0 ? low : high);
#pragma unroll
      for (int k = 0; k + 1 < kSteps; k += 2) {
        const uint4 vec = *reinterpret_cast<const uint4*>(row + k * 4 + lane * 2);
        part[i][k][0] = vec.x;
        part[i][k][1] = vec.y;
        part[i][k + 1][0] = vec.z;
        part[i][k + 1][1] = vec.w;
      }
      if constexpr (kSteps % 2 != 0) {
        const uint2 vec = row[(kSteps - 1) * 4 + lane];
        part[i][kSteps - 1][0] = vec.x;
        part[i][kSteps - 1][1] = vec.y;
      }
    }
  }
  /// The dim of the first element of part [k][half].
  static __device__ int dim(int k, int half) {
    const int lane = device::lane_index() % 4;
    const bool is_paired = k / 2 * 2 + 1 < kSteps;
    return is_paired ? k / 2 * 32 + lane * 8 + k % 2 * 4 + half * 2 : k * 16 + lane * 4 + half * 2;
  }
};

/// Some queries of an item, kQueries at most: query n is lead n / group, head n % group.
template <class T, int kDim>
struct Tile {
  device::MmaRight q[Keys<kDim>::kSteps];

  __device__ Tile(const ScoreParams& p, const ScoreItem& item, index_t head, index_t first,
                  index_t queries) {
    const index_t mine = first + device::lane_index() / 4;
    const std::uint16_t* const from = reinterpret_cast<const std::uint16_t*>(p.q.data) +
                                      (item.lead_begin + mine / p.group) * p.q.stride +
                                      (head * p.group + mine % p.group) * p.q.head_stride;
#pragma unroll
    for (int k = 0; k < Keys<kDim>::kSteps; ++k) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int d = Keys<kDim>::dim(k, half);
        q[k].part[half] =
            mine < queries ? from[d] | static_cast<std::uint32_t>(from[d + 1]) << 16 : 0U;
      }
    }
  }
  /// The first of the two columns of products that a lane gets.
  static __device__ int column() { return device::lane_index() % 4 * 2; }
};

/// Running sums of exp of a lane's two queries.
struct Sums {
  float largest[2] = {-INFINITY, -INFINITY};
  float weight[2] = {0, 0};

  static __device__ float exp_fast(float x) { return device::exp2_fast(x * kLog2E); }
  __device__ void add(int j, float low, float high) {
    const float next = fmaxf(largest[j], fmaxf(low, high));
    const float base = next == -INFINITY ? 0.0F : next;
    weight[j] =
        fmaf(weight[j], exp_fast(largest[j] - base), exp_fast(low - base)) + exp_fast(high - base);
    largest[j] = next;
  }
  __device__ void merge(int j, float other_largest, float other_weight) {
    const float next = fmaxf(largest[j], other_largest);
    const float base = next == -INFINITY ? 0.0F : next;
    const float other = __fmul_rn(other_weight, exp_fast(other_largest - base));
    weight[j] = __fmaf_rn(weight[j], exp_fast(largest[j] - base), other);
    largest[j] = next;
  }
  /// Those of all lanes that share the columns.
  __device__ void merge_lanes() {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int step = 4; step < device::kWarpSize; step *= 2) {
        const float other_largest = __shfl_xor_sync(device::kAllLanes, largest[j], step);
        const float other_weight = __shfl_xor_sync(device::kAllLanes, weight[j], step);
        merge(j, other_largest, other_weight);
      }
    }
  }
};

/// {largest, sum of exp} of a block of tokens from those of its warps, which take its chunks in
/// turn; `warp_sum(w)` is the w-th.
template <class WarpSum>
__device__ float2 merge_warps(WarpSum warp_sum) {
  Sums all;
  for (int w = 0; w < kScoreWarps; ++w) {
    const float2 own = warp_sum(w);
    all.merge(0, own.x, own.y);
  }
  return {isnan(all.weight[0]) ? 0.0F : all.largest[0], all.weight[0]};
}

/// What a lane gets of the products of a chunk: of tokens lane / 4 and 8 more, of its two columns.
struct Products {
  float value[2][2];  // [token, column]

  /// To to[j] + at, `to` null where the lane has no such column, [0] where it has none; of tokens
  /// the lane's first, and the other one if it is below `tokens`, counted from the first.
  __device__ void store(float* const (&to)[2], index_t at, index_t group,
                        std::int32_t tokens) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (8 * i >= tokens || to[0] == nullptr) continue;
      if (group % 2 == 0) {
        *reinterpret_cast<float2*>(to[0] + at) = {value[i][0], value[i][1]};
      } else {
        to[0][at] = value[i][0];
        if (to[1] != nullptr) to[1][at] = value[i][1];
      }
      at += 8 * group;
    }
  }
};

/// Products of a chunk, `token` the lane's first; of columns that are there, into `sums` too.
template <class T, int kDim>
__device__ Products multiply(float scale, const Keys<kDim>& keys, const Tile<T, kDim>& tile,
                             int columns, std::int32_t token, std::int32_t tokens, Sums& sums) {
  device::MmaSum even, odd;
#pragma unroll
  for (int k = 0; k < Keys<kDim>::kSteps; ++k) {
    const device::MmaLeft left{
        {keys.part[0][k][0], keys.part[1][k][0], keys.part[0][k][1], keys.part[1][k][1]}};
    device::multiply_add(k % 2 == 0 ? even : odd, left, tile.q[k], T{});
  }
  Products products;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // Token 0 is no candidate, whatever its row holds.
      const bool counts = token + 8 * i > 0 && token + 8 * i < tokens;
      const float x = __fmul_rn(even.value[2 * i + j] + odd.value[2 * i + j], scale);
      products.value[i][j] = counts ? x : -INFINITY;
    }
    if (j < columns) sums.add(j, products.value[0][j], products.value[1][j]);
  }
  return products;
}

}  // namespace spectx::cu::score
