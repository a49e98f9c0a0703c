// SPDX-License-Identifier: Apache-2.0
// out = softmax(q k^T scale) v for items with few rows, on tensor cores: the weights are rounded to
// the rows' type, sums are floats.
// Moves, for each batch row and KV head, ranks * (k_dim + v_dim) * row bytes once for up to 8 query
// heads (more read again from the cache): memory bound. Partials add
// query_heads * (v_dim + 2) * 8 bytes a split.
//
// The ranks that a row sees are cut into at most kMostSplits splits, each the same multiple of a
// tile: a function of their number alone. Within a split a warp takes every fourth chunk;
// warps and splits are combined in ascending order, by the last block of a row and head to end. So
// a result depends on the rows that it sees and on nothing else.
#include <cmath>

#include "attend.hpp"
#include "attend_partials.cuh"

namespace spectx::cu {
namespace {

using namespace attend;

constexpr index_t kMostPartialBytes = index_t{64} << 20;  // of a launch: it takes as many rows
constexpr float kLog2E = 1.4426950408889634F;

/// The lane's part of the queries; zeros for those that are not there.
template <class T, int kDim>
__device__ void load_queries(const Params& p, const Place& place,
                             device::MmaRight (&q)[kDim / 16]) {
  const int query = device::lane_index() / 4;
  const std::uint16_t* const from = reinterpret_cast<const std::uint16_t*>(p.q.data) +
                                    place.batch_row * p.q.stride +
                                    (place.first_head + query) * p.q.head_stride;
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int d = k * 16 + i * 8 + device::lane_index() % 4 * 2;
      q[k].part[i] =
          query < place.queries ? from[d] | static_cast<std::uint32_t>(from[d + 1]) << 16 : 0U;
    }
  }
}

/// The ranks of a block: some splits, a tile at a time.
struct Cursor {
  std::int32_t split, first, end;

  __device__ Cursor(const Splits& all, std::int32_t at)
      : split(at), first(at * all.ranks), end(min(first + all.ranks, all.visible)) {}
  __device__ Cursor next(const Splits& all, std::int32_t step, std::int32_t blocks) const {
    if (first + step >= end) return {all, split + blocks};
    Cursor next = *this;
    next.first += step;
    return next;
  }
};

/// A warp's part of a tile.
template <class T, int kDim>
struct WarpTiles {
  static constexpr int kStages = Chunk<T, kDim>::kStages;
  T* memory;
  index_t v_offset;

  __device__ Chunk<T, kDim> chunk(int stage) const {
    return {memory + (device::warp_index() * kStages + stage) * Chunk<T, kDim>::kElements};
  }
  __device__ std::int32_t rank(const Cursor& tile, int stage) const {
    return tile.first + (stage * kBlockWarps + device::warp_index()) * kChunkRanks;
  }
  /// Of the lane's rank: each half of a warp has those of a stage.
  __device__ const std::byte* address(const KVRows& kv, const Splits& all,
                                      const Cursor& tile) const {
    const int lane = device::lane_index();
    const std::int32_t own = rank(tile, lane / kChunkRanks % kStages) + lane % kChunkRanks;
    return tile.split < all.count ? kv.address(min(own, tile.end - 1)) : nullptr;
  }
  /// A group of copies, be it empty.
  __device__ void start_load(const Splits& all, const Cursor& tile, int stage,
                             const std::byte* row) const {
    const std::int32_t count = tile.end - rank(tile, stage);
    if (tile.split < all.count && count > 0) {
      chunk(stage).start_load(row, stage * kChunkRanks, count, v_offset);
    }
    device::end_copy_group();
  }
};

/// A block's splits. The next tile is on its way while one is computed, the addresses of the one
/// after it too.
template <class T, int kDim>
__device__ void attend_splits(const Params& p, const Place& place, const KVRows& kv,
                              const Splits& all, std::int32_t blocks, std::byte* memory) {
  constexpr int kStages = Chunk<T, kDim>::kStages;
  constexpr int kStep = Chunk<T, kDim>::kTileRanks;
  const WarpTiles<T, kDim> tiles{reinterpret_cast<T*>(memory), p.kv.v_offset};
  const BlockSum<kDim> sum{reinterpret_cast<float*>(
      memory + kBlockWarps * kStages * Chunk<T, kDim>::kElements * sizeof(T))};
  Cursor now(all, static_cast<std::int32_t>(blockIdx.x));
  Cursor next = now.next(all, kStep, blocks);
  const std::byte* row = tiles.address(kv, all, now);
  const std::byte* next_row = tiles.address(kv, all, next);
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) tiles.start_load(all, now, stage, row);
  device::MmaRight q[kDim / 16];
  load_queries<T, kDim>(p, place, q);
  WarpState<T, kDim> state;
  state.clear();
  while (now.split < all.count) {
    const Cursor after = next.next(all, kStep, blocks);
    row = tiles.address(kv, all, after);
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      device::wait_copy_groups<kStages - 1>();
      __syncwarp();
      const std::int32_t count = now.end - tiles.rank(now, stage);
      if (count > 0) state.add(tiles.chunk(stage), q, p.scale_log2, count);
      __syncwarp();
      tiles.start_load(all, next, stage, next_row);
    }
    if (next.split != now.split) {
      sum.add(state, place.queries);
      sum.write_partial(p, place, now.split);
      state.clear();
    }
    now = next;
    next = after;
    next_row = row;
  }
}

// One block some splits of a batch row and KV head, for up to kQueries query heads.
template <class T, int kDim>
__global__ void __launch_bounds__(kBlockThreads, (Chunk<T, kDim>::kBlocks))
    attend_few_rows_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(16) std::byte memory[];
  __shared__ bool is_last;
  const Place place(p);
  if (p.batch.row_begin[place.item + 1] - p.batch.row_begin[place.item] > p.most_rows) return;
  const KVRows kv(p.kv, place.item, p.batch.request[place.item], place.head);
  const Splits all(kv.visible(p.batch.position[place.batch_row]), Chunk<T, kDim>::kTileRanks);
  const auto blocks = min(gridDim.x, static_cast<unsigned>(max(all.count, 1)));
  if (blockIdx.x >= blocks) return;
  attend_splits<T, kDim>(p, place, kv, all, static_cast<std::int32_t>(blocks), memory);
  __syncthreads();
  if (threadIdx.x == 0) {
    std::uint32_t* const done = p.done + blockIdx.z * gridDim.y + blockIdx.y;
    __threadfence();
    is_last = atomicInc(done, blocks - 1) == blocks - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  float* const shares = reinterpret_cast<float*>(memory);
  combine<T, kDim>(p, place, all.count, shares, shares + kQueries * kMostSplits);
}

template <class T>
void launch_rows(const AttendArgs& a, const Params& p, index_t rows, const Launch& on) {
  dispatch_value<64, 80, 96, 128, 256>(a.kv.k_dim, [&]<index_t kSize>() {
    constexpr int kDim = static_cast<int>(kSize);
    using Tile = Chunk<T, kDim>;
    constexpr int kBytes =
        kBlockWarps * Tile::kStages * Tile::kElements * static_cast<int>(sizeof(T)) +
        BlockSum<kDim>::kFloats * static_cast<int>(sizeof(float));
    static_assert(kQueries * (kMostSplits + 1) * static_cast<int>(sizeof(float)) <= kBytes);
    const auto kernel = attend_few_rows_kernel<T, kDim>;
    // Blocks that run at once; of more pairs than that some, for the last to end together.
    constexpr index_t kUnevenBlocks = 8;
    const index_t pairs = a.kv.kv_heads * p.query_tiles * rows;
    const index_t room = index_t{on.multiprocessors} * Tile::kBlocks;
    const index_t blocks = pairs <= room ? room / pairs : kUnevenBlocks;
    const dim3 grid(static_cast<unsigned>(std::min<index_t>(blocks, kMostSplits)),
                    static_cast<unsigned>(a.kv.kv_heads * p.query_tiles),
                    static_cast<unsigned>(rows));
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    kernel<<<grid, kBlockThreads, kBytes, on.stream>>>(p);
  });
  check(cudaGetLastError());
}

}  // namespace

bool has_few_rows_kernel(const AttendArgs& a) noexcept {
  const bool is_half = a.kv.dtype == DType::f16 || a.kv.dtype == DType::bf16;
  const bool is_one_type = a.q.dtype == a.kv.dtype && a.out.dtype == a.kv.dtype;
  const index_t dim = a.kv.k_dim;
  const bool is_known = dim == 64 || dim == 80 || dim == 96 || dim == 128 || dim == 256;
  return is_half && is_one_type && is_known && a.kv.v_dim == dim && has_wide_rows(a.kv);
}

void launch_attend_few_rows(const AttendArgs& a, index_t most_rows, const Launch& on) {
  const index_t rows = a.batch->num_rows;
  const int query_heads = static_cast<int>(a.q.shape[1]);
  const int group = query_heads / static_cast<int>(a.kv.kv_heads);
  const int query_tiles = (group + kQueries - 1) / kQueries;
  const float scale = a.scale != 0 ? a.scale : 1 / std::sqrt(static_cast<float>(a.kv.k_dim));
  const index_t row_partials = query_heads * index_t{kMostSplits};
  const index_t row_bytes = row_partials * (a.kv.v_dim + 2) * index_t{sizeof(float)};
  const index_t row_counters = a.kv.kv_heads * query_tiles;
  const index_t fitting =
      std::max(std::min(kMostPartialBytes / row_bytes, kZeroWords / row_counters), index_t{1});
  const index_t portion = div_up(rows, div_up(rows, fitting));
  float* const partials = reinterpret_cast<float*>(on.scratch.reserve(portion * row_bytes));
  Params p{Queries(a.q),
           a.kv,
           view_of(*a.batch),
           0,
           most_rows,
           query_heads,
           group,
           query_tiles,
           scale * kLog2E,
           partials,
           partials + 2 * portion * row_partials,
           on.zeros,
           static_cast<std::byte*>(a.out.data),
           a.out.strides[0],
           a.out.strides[1]};
  for (; p.first_row < rows; p.first_row += portion) {
    const index_t count = std::min(portion, rows - p.first_row);
    if (a.kv.dtype == DType::f16) {
      launch_rows<__half>(a, p, count, on);
    } else {
      launch_rows<__nv_bfloat16>(a, p, count, on);
    }
  }
}

}  // namespace spectx::cu
