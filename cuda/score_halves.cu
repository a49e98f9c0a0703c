// SPDX-License-Identifier: Apache-2.0
// products[n, j] = q_j . k_n * scale on tensor cores, and their sums over blocks of tokens: the
// first half of score for queries and keys of one half type. Products of halves are exact, sums are
// floats.
// Moves kv_heads * first * k_dim * row bytes once for 8 queries: memory bound.
#include "device/mma.cuh"
#include "launch_early.cuh"
#include "score.cuh"

namespace spectx::cu {
namespace {

constexpr int kChunkTokens = 16;  // the height of a tile of the tensor cores
constexpr int kQueries = 8;       // its width
constexpr int kBlocksPerMultiprocessor = 4;
constexpr float kLog2E = 1.4426950408889634F;

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

/// The queries of a tile: query n of an item is lead n / group, head n % group.
template <class T, int kDim>
struct Tile {
  device::MmaRight q[Keys<kDim>::kSteps];
  float* to[2];  // products of token 0 of the lane's two queries; null: none

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
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const index_t n = first + device::lane_index() % 4 * 2 + j;
      to[j] =
          n < queries ? p.products_of(item.lead_begin + n / p.group, head) + n % p.group : nullptr;
    }
  }
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
    weight[j] =
        weight[j] * exp_fast(largest[j] - base) + other_weight * exp_fast(other_largest - base);
    largest[j] = next;
  }
};

/// Products of a chunk whose first token is `first`.
template <class T, int kDim>
__device__ void multiply(const ScoreParams& p, const Keys<kDim>& keys, const Tile<T, kDim>& tile,
                         std::int32_t first, std::int32_t tokens, Sums& sums) {
  device::MmaSum even, odd;
#pragma unroll
  for (int k = 0; k < Keys<kDim>::kSteps; ++k) {
    const device::MmaLeft left{
        {keys.part[0][k][0], keys.part[1][k][0], keys.part[0][k][1], keys.part[1][k][1]}};
    device::multiply_add(k % 2 == 0 ? even : odd, left, tile.q[k], T{});
  }
  const std::int32_t token = first + device::lane_index() / 4;
  float product[2][2];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // Token 0 is no candidate, whatever its row holds.
      const bool counts = token + 8 * i > 0 && token + 8 * i < tokens;
      const float x = (even.value[2 * i + j] + odd.value[2 * i + j]) * p.scale;
      product[i][j] = counts ? x : -INFINITY;
    }
    if (tile.to[j] != nullptr) sums.add(j, product[0][j], product[1][j]);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (token + 8 * i >= tokens || tile.to[0] == nullptr) continue;
    const index_t at = index_t{token + 8 * i} * p.group;
    if (p.group % 2 == 0) {
      *reinterpret_cast<float2*>(tile.to[0] + at) = {product[i][0], product[i][1]};
    } else {
      tile.to[0][at] = product[i][0];
      if (tile.to[1] != nullptr) tile.to[1][at] = product[i][1];
    }
  }
}

/// Writes a block's sums; `shared` [kScoreWarps, kQueries].
__device__ void write_sums(const ScoreParams& p, const ScoreItem& item, index_t head, index_t first,
                           index_t queries, index_t block, Sums& sums, float2 (*shared)[kQueries]) {
  const int lane = device::lane_index();
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int step = 4; step < device::kWarpSize; step *= 2) {
      const float largest = __shfl_xor_sync(device::kAllLanes, sums.largest[j], step);
      const float weight = __shfl_xor_sync(device::kAllLanes, sums.weight[j], step);
      sums.merge(j, largest, weight);
    }
    if (lane / 4 == 0) {
      shared[device::warp_index()][lane * 2 + j] = {sums.largest[j], sums.weight[j]};
    }
  }
  __syncthreads();
  const index_t n = first + static_cast<index_t>(threadIdx.x);
  if (threadIdx.x < kQueries && n < queries) {
    Sums all;
    for (int w = 0; w < kScoreWarps; ++w) {
      all.merge(0, shared[w][threadIdx.x].x, shared[w][threadIdx.x].y);
    }
    const bool has_nan = isnan(all.weight[0]);
    *reinterpret_cast<float2*>(p.sum_of(item.lead_begin + n / p.group, head * p.group + n % p.group,
                                        block)) = {has_nan ? 0.0F : all.largest[0], all.weight[0]};
  }
  __syncthreads();
}

// One block kScoreTokens tokens of one KV head and item at a time; a warp every fourth chunk, the
// next one on its way while it multiplies.
template <class T, int kDim>
__global__ void __launch_bounds__(kScoreThreads)
    multiply_halves_kernel(const __grid_constant__ ScoreParams p) {
  __shared__ float2 shared[kScoreWarps][kQueries];
  device::wait_for_kernel_ahead();
  device::let_next_kernel_start();
  const index_t item_index = p.first_item + blockIdx.z;
  const ScoreItem item(p, item_index);
  const index_t head = blockIdx.y;
  if (blockIdx.x >= item.blocks()) return;
  const KVRows rows(p.keys, item_index, item.request, head);
  const index_t queries = (item.lead_end - item.lead_begin) * p.group;
  for (index_t first = 0; first < queries; first += kQueries) {
    const Tile<T, kDim> tile(p, item, head, first, queries);
    const auto load = [&](std::int32_t token) {
      const std::int32_t mine = token + device::lane_index() / 4;
      Keys<kDim> keys;
      keys.load(rows.address(min(mine, item.tokens - 1)),
                rows.address(min(mine + 8, item.tokens - 1)));
      return keys;
    };
    constexpr std::int32_t kStep = kScoreWarps * kChunkTokens;
    constexpr int kChunks = kScoreTokens / kStep;
    const std::int32_t own = device::warp_index() * kChunkTokens;
    Keys<kDim> keys = load(static_cast<std::int32_t>(blockIdx.x) * kScoreTokens + own);
    for (index_t block = blockIdx.x; block * kScoreTokens < item.tokens; block += gridDim.x) {
      const auto begin = static_cast<std::int32_t>(block * kScoreTokens);
      Sums sums;
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        const index_t next =
            i + 1 < kChunks ? begin + (i + 1) * kStep : (block + gridDim.x) * kScoreTokens;
        const Keys<kDim> these = keys;
        keys = load(static_cast<std::int32_t>(min(next + own, index_t{item.tokens})));
        multiply<T, kDim>(p, these, tile, begin + i * kStep + own, item.tokens, sums);
      }
      write_sums(p, item, head, first, queries, block, sums, shared);
    }
  }
  end_block(p, item, head);
}

template <class T>
void launch(const ScoreArgs& a, const ScoreParams& p, index_t items, const Launch& on) {
  const dim3 grid(score_blocks(p, items, kBlocksPerMultiprocessor, on),
                  static_cast<unsigned>(a.keys.kv_heads), static_cast<unsigned>(items));
  dispatch_value<64, 80, 96, 128, 256>(a.keys.k_dim, [&]<index_t kDim>() {
    launch_early(multiply_halves_kernel<T, static_cast<int>(kDim)>, grid, kScoreThreads, 0, p, on);
  });
}

}  // namespace

bool has_half_score_kernel(const ScoreArgs& a) noexcept {
  const bool is_half = a.keys.dtype == DType::f16 || a.keys.dtype == DType::bf16;
  const index_t dim = a.keys.k_dim;
  const bool is_known = dim == 64 || dim == 80 || dim == 96 || dim == 128 || dim == 256;
  return is_half && a.q.dtype == a.keys.dtype && is_known && has_wide_rows(a.keys);
}

void launch_multiply_halves(const ScoreArgs& a, const ScoreParams& p, index_t items,
                            const Launch& on) {
  if (a.keys.dtype == DType::f16) {
    launch<__half>(a, p, items, on);
  } else {
    launch<__nv_bfloat16>(a, p, items, on);
  }
}

}  // namespace spectx::cu
