// SPDX-License-Identifier: Apache-2.0
// score for items with one lead row and few queries a KV head, where blocks run in clusters and
// shared memory holds the products: they wait there for their log_sum.
// Moves kv_heads * first * (k_dim * row bytes + 4) once: memory bound.
//
// The same products and sums as those of the two kernels, added up in the same order: bit for bit.
#include "device/cluster.cuh"
#include "launch_early.cuh"
#include "score_tile.cuh"

namespace spectx::cu {
namespace {

using namespace score;

constexpr index_t kStoreBytes = kMostSharedBytes - 1024;  // of shared memory, at most
template <int kDim>
constexpr int kMostThreads = kDim > 128 ? 256 : 512;
constexpr int kWarpChunks = kScoreTokens / kScoreWarps / kChunkTokens;

/// A block's part of an item: every gridDim.x-th kScoreTokens, of which a warp takes every fourth
/// chunk.
struct Part {
  std::int32_t tokens, count;  // of the item; kScoreTokens of the block
  std::int32_t rank, blocks;

  __device__ explicit Part(std::int32_t all_tokens)
      : tokens(all_tokens),
        rank(static_cast<std::int32_t>(blockIdx.x)),
        blocks(static_cast<std::int32_t>(gridDim.x)) {
    const std::int32_t all = (tokens + kScoreTokens - 1) / kScoreTokens;
    count = (all - rank + blocks - 1) / blocks;
  }
  /// The first token of the block's i-th kScoreTokens.
  __device__ std::int32_t token(std::int32_t i) const { return (i * blocks + rank) * kScoreTokens; }
};

/// What a block keeps in shared memory.
struct Store {
  float* products;    // [count, kScoreTokens, group]
  float2* warp_sums;  // [count, kScoreWarps, group]
  float2* sums;       // [count, group]

  __device__ Store(float* memory, std::int32_t most, index_t group)
      : products(memory),
        warp_sums(reinterpret_cast<float2*>(products + most * kScoreTokens * group)),
        sums(warp_sums + most * kScoreWarps * group) {}
  static index_t bytes(index_t most, index_t group) {
    return most * group *
           (kScoreTokens * index_t{sizeof(float)} + (kScoreWarps + 1) * index_t{sizeof(float2)});
  }
};

/// The block's products, and the sums of each of its warps' chunks.
template <class T, int kDim>
__device__ void multiply_part(const ScoreParams& p, const ScoreItem& item, const KVRows& rows,
                              const Part& part, const Store& store) {
  const int warps = device::warp_count();  // a multiple of kScoreWarps
  const int row = device::lane_index() / 4;
  const int own = device::warp_index() % kScoreWarps * kChunkTokens + row;
  constexpr int kStep = kScoreWarps * kChunkTokens;
  const auto find = [&](std::int32_t token, int half) {
    const auto n = static_cast<std::uint32_t>(token) + static_cast<std::uint32_t>(own + 8 * half);
    return rows.locate(min(n, static_cast<std::uint32_t>(part.tokens - 1)));
  };
  std::int32_t i = device::warp_index() / kScoreWarps;
  if (i >= part.count) return;
  // Of the next chunk the keys are on their way, of the one after it the addresses.
  KVRows::Address low = find(part.token(i), 0);
  KVRows::Address high = find(part.token(i), 1);
  const Tile<T, kDim> tile(p, item, blockIdx.y, 0, p.group);
  const int group = static_cast<int>(p.group);
  const int column = device::lane_index() % 4 * 2;
  const int columns = max(min(group - column, 2), 0);
  Keys<kDim> keys;
  keys.load(low.row(), high.row());
  low = find(part.token(i) + kStep, 0);
  high = find(part.token(i) + kStep, 1);
  for (; i < part.count; i += warps / kScoreWarps) {
    const std::int32_t first = part.token(i);
    const std::int32_t next = part.token(min(i + warps / kScoreWarps, part.count - 1));
    float* const products = store.products + (i * kScoreTokens + own) * group + column;
    float* const to[2] = {columns > 0 ? products : nullptr, columns > 1 ? products + 1 : nullptr};
    Sums sums;
#pragma unroll
    for (int c = 0; c < kWarpChunks; ++c) {
      const Keys<kDim> these = keys;
      keys.load(low.row(), high.row());
      const std::int32_t after =
          c + 2 < kWarpChunks ? first + (c + 2) * kStep : next + (c + 2 - kWarpChunks) * kStep;
      low = find(after, 0);
      high = find(after, 1);
      multiply<T, kDim>(p.scale, these, tile, columns, first + c * kStep + own, part.tokens, sums)
          .store(to, c * kStep * group, group, kChunkTokens);
    }
    sums.merge_lanes();
    float2* const warp_sums =
        store.warp_sums + (i * kScoreWarps + device::warp_index() % kScoreWarps) * group + column;
    for (int j = 0; row == 0 && j < columns; ++j) {
      warp_sums[j] = {sums.largest[j], sums.weight[j]};
    }
  }
}

// One cluster an item and KV head.
template <class T, int kDim>
__global__ void __launch_bounds__((kMostThreads<kDim>), 1)
    score_cluster_kernel(const __grid_constant__ ScoreParams p) {
  extern __shared__ __align__(16) float memory[];
  __shared__ float log_sums[kQueries];
  device::wait_for_kernel_ahead();
  device::let_next_kernel_start();
  const index_t item_index = p.first_item + blockIdx.z;
  const index_t head = blockIdx.y;
  const ScoreItem item(p, item_index);
  const KVRows rows(p.keys, item_index, item.request, head);
  if (item.tokens == 0 || item.lead_end - item.lead_begin != 1) return;  // no block has work
  const Part part(item.tokens);
  const int group = static_cast<int>(p.group);
  const Store store(memory, static_cast<std::int32_t>(p.blocks), p.group);
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const auto threads = static_cast<std::int32_t>(blockDim.x);
  multiply_part<T, kDim>(p, item, rows, part, store);
  __syncthreads();
  for (std::int32_t i = thread; i < part.count * group; i += threads) {
    const float2* const own = store.warp_sums + i / group * kScoreWarps * group + i % group;
    store.sums[i] = merge_warps([&](int w) { return own[w * group]; });
  }
  device::arrive_at_cluster();
  device::wait_for_cluster();
  for (int g = device::warp_index(); g < group; g += device::warp_count()) {
    const int all = (part.tokens + kScoreTokens - 1) / kScoreTokens;
    const float log_sum = add_up_blocks(all, [&](int b) {
      return device::load_remote(store.sums + b / part.blocks * group + g,
                                 static_cast<unsigned>(b % part.blocks));
    });
    if (device::lane_index() != 0) continue;
    log_sums[g] = log_sum;
    if (part.rank == 0) p.log_sum.row(item.lead_begin)[head * group + g] = log_sum;
  }
  device::arrive_at_cluster();  // no more reads of other blocks
  __syncthreads();
  float* const scores = p.scores.row(item_index, head);
  for (std::int32_t i = thread; i < part.count * kScoreTokens; i += threads) {
    const std::int32_t token = part.token(i / kScoreTokens) + i % kScoreTokens;
    if (token >= part.tokens) continue;
    const float score = reduce_group(store.products + i * group, log_sums, p.group, p.is_mean);
    scores[token] = token == 0 ? -INFINITY : score;
  }
  device::wait_for_cluster();
}

/// How a launch shares the tokens of an item; no blocks: the two kernels are faster.
struct Shape {
  index_t blocks;  // of a cluster
  int warps;
  index_t most;  // kScoreTokens of a block
};

Shape shape_of(index_t tokens, index_t pairs, index_t group, const Launch& on) {
  // As measured: short items, or many of them. Else clusters leave multiprocessors idle.
  constexpr index_t kShortTokens = 8192;
  const bool has_many = 5 * pairs >= 3 * index_t{on.multiprocessors};
  if (tokens > kShortTokens && !has_many) return {};
  const index_t all = div_up(tokens, kScoreTokens);
  index_t blocks = pairs <= 16 ? 8 : (pairs <= 64 ? 4 : (pairs <= 256 ? 2 : 1));
  const auto fits = [&] {
    return Store::bytes(div_up(all, blocks), group) <= kStoreBytes;
  };
  while (blocks < device::kMostCluster && !fits()) blocks *= 2;
  if (!fits()) return {};
  // Sixteen fill a multiprocessor, which leaves no room for a second block.
  const int warps = 2 * pairs * blocks <= on.multiprocessors ? 16 : 8;
  return {blocks, warps, div_up(all, blocks)};
}

template <class T>
void launch(const ScoreArgs& a, const ScoreParams& p, const Shape& shape, const Launch& on) {
  const dim3 grid(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(a.keys.kv_heads),
                  static_cast<unsigned>(a.batch->items.size()));
  const auto bytes = static_cast<int>(Store::bytes(shape.most, p.group));
  dispatch_value<64, 80, 96, 128, 256>(a.keys.k_dim, [&]<index_t kSize>() {
    constexpr int kDim = static_cast<int>(kSize);
    const auto kernel = score_cluster_kernel<T, kDim>;
    // The most, not `bytes`: it is the process's, and another backend may launch with more just now.
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(kStoreBytes)));
    launch_early(kernel, grid, std::min(shape.warps * device::kWarpSize, kMostThreads<kDim>), bytes,
                 p, on, static_cast<unsigned>(shape.blocks));
  });
}

}  // namespace

bool launch_score_cluster(const ScoreArgs& a, ScoreParams p, index_t most_tokens,
                          const Launch& on) {
  constexpr index_t kMostItems = 65'535;  // of a grid
  const auto items = static_cast<index_t>(a.batch->items.size());
  if (!on.has_clusters || !has_half_score_kernel(a) || p.group > kQueries || items > kMostItems) {
    return false;
  }
  const Shape shape = shape_of(most_tokens, items * a.keys.kv_heads, p.group, on);
  if (shape.blocks == 0) return false;
  p.blocks = shape.most;  // by which a block's shared memory is laid out
  if (a.keys.dtype == DType::f16) {
    launch<__half>(a, p, shape, on);
  } else {
    launch<__nv_bfloat16>(a, p, shape, on);
  }
  return true;
}

}  // namespace spectx::cu
