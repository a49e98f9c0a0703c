// SPDX-License-Identifier: Apache-2.0
// products[n, j] = q_j . k_n * scale on tensor cores, and their sums over blocks of tokens: the
// first half of score for queries and keys of one half type. Products of halves are exact, sums are
// floats.
// Moves kv_heads * first * k_dim * row bytes once for 8 queries: memory bound.
#include "launch_early.cuh"
#include "score_tile.cuh"

namespace spectx::cu {
namespace {

using namespace score;

constexpr int kBlocksPerMultiprocessor = 4;

/// Where products of the lane's two columns go: those of token 0. Null: it has none.
struct Columns {
  float* to[2];
  int count;

  __device__ Columns(const ScoreParams& p, const ScoreItem& item, index_t head, index_t first,
                     index_t queries) {
    count = 0;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const index_t n = first + device::lane_index() % 4 * 2 + j;
      const bool is_there = n < queries;
      count += is_there ? 1 : 0;
      to[j] = is_there ? p.products_of(item.lead_begin + n / p.group, head) + n % p.group : nullptr;
    }
  }
};

/// Writes a block's sums; `shared` [kScoreWarps, kQueries].
__device__ void write_sums(const ScoreParams& p, const ScoreItem& item, index_t head, index_t first,
                           index_t queries, index_t block, Sums& sums, float2 (*shared)[kQueries]) {
  sums.merge_lanes();
  if (device::lane_index() / 4 == 0) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      shared[device::warp_index()][device::lane_index() * 2 + j] = {sums.largest[j],
                                                                    sums.weight[j]};
    }
  }
  __syncthreads();
  const index_t n = first + static_cast<index_t>(threadIdx.x);
  if (threadIdx.x < kQueries && n < queries) {
    *reinterpret_cast<float2*>(
        p.sum_of(item.lead_begin + n / p.group, head * p.group + n % p.group, block)) =
        merge_warps([&](int w) { return shared[w][threadIdx.x]; });
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
    const Columns columns(p, item, head, first, queries);
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
        const std::int32_t token = begin + i * kStep + own + device::lane_index() / 4;
        const Products products =
            multiply<T, kDim>(p.scale, these, tile, columns.count, token, item.tokens, sums);
        products.store(columns.to, token * p.group, p.group, item.tokens - token);
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
