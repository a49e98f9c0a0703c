// SPDX-License-Identifier: Apache-2.0
// out = softmax(q k^T scale) v for items with few rows, on tensor cores: the weights are rounded to
// the rows' type, sums are floats.
// Moves, for each batch row and KV head, ranks * (k_dim + v_dim) * row bytes once for up to 8 query
// heads (more read again from the cache): memory bound. Partials add
// query_heads * (v_dim + 2) * 8 bytes a split.
//
// The ranks that a row sees are cut into at most kMostSplits splits, each the same multiple of a
// tile: a function of their number alone. A block walks a split tile by tile, and splits are folded
// in ascending order: by the block that has them all, or from memory by the last block of a row and
// head to end. So a result depends on the rows that it sees and on nothing else.
#include <cmath>

#include "attend.hpp"
#include "attend_partials.cuh"
#include "device/block.cuh"
#include "launch_early.cuh"

namespace spectx::cu {
namespace {

using namespace attend;

constexpr float kLog2E = 1.4426950408889634F;
template <int kDim>
constexpr int kBlocks = kDim > 128 ? 2 : 3;  // that share a multiprocessor: of shared memory

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

/// Where a block is among its splits, a tile at a time.
struct Cursor {
  std::int32_t split, first, end;

  __device__ Cursor(const Splits& all, std::int32_t at) : split(at), first(0), end(0) {
    if (is_past(all)) return;
    first = at * all.ranks;
    end = all.visible - first < all.ranks ? all.visible : first + all.ranks;
  }
  __device__ bool is_past(const Splits& all) const { return split >= all.count; }
  __device__ int count() const { return min(end - first, kTileRanks); }
  __device__ void advance(const Splits& all, std::int32_t blocks) {
    first += kTileRanks;
    if (first >= end) *this = Cursor(all, split + blocks);
  }
};

/// A block's tiles on their way to shared memory: of one the address of the lane's row, of the one
/// after it the place are known, or on their way too.
template <class T, int kDim>
struct Loader {
  const KVRows& kv;
  const Splits& all;
  std::int32_t blocks;
  index_t v_offset;
  Cursor next, after;
  KVRows::Address address;
  std::uint32_t place;

  __device__ Loader(const KVRows& rows, const Splits& splits, const Cursor& first,
                    std::int32_t step, index_t to_v)
      : kv(rows), all(splits), blocks(step), v_offset(to_v), next(first), after(first) {
    place = find(next);
    advance();
  }
  __device__ std::uint32_t find(const Cursor& tile) const {
    const int own = device::warp_index() * kChunkRanks + device::lane_index() % kChunkRanks;
    return kv.place(min(tile.first + own, all.visible - 1));
  }
  __device__ void advance() {
    next = after;
    address = kv.locate(place);
    after.advance(all, blocks);
    place = find(after);
  }
  /// A group of copies, be it empty.
  __device__ void load(const Tile<T, kDim>& to) {
    const int count = next.count() - device::warp_index() * kChunkRanks;
    if (!next.is_past(all) && count > 0) to.start_load(address.row(), count, v_offset);
    device::end_copy_group();
    advance();
  }
};

/// A block's splits: folded into `total` if they are all, else each a partial.
template <class T, int kDim, int kStages>
__device__ void attend_splits(const Params& p, const Place& place, const KVRows& kv,
                              const Splits& all, std::int32_t blocks, T* memory,
                              State<T, kDim>& total) {
  using Tile = attend::Tile<T, kDim>;
  float* const scores = reinterpret_cast<float*>(memory + kStages * Tile::kElements);
  Cursor now(all, static_cast<std::int32_t>(blockIdx.x));
  if (now.is_past(all)) return;
  Loader<T, kDim> loader(kv, all, now, blocks, p.kv.v_offset);
  constexpr int kAhead = kStages > 1 ? kStages - 1 : 1;  // tiles that are on their way
#pragma unroll
  for (int i = 0; i < kAhead; ++i) loader.load({memory + i * Tile::kElements});
  device::MmaRight q[kDim / 16];
  load_queries<T, kDim>(p, place, q);
  State<T, kDim> state;
  state.clear();
  for (int stage = 0; !now.is_past(all); stage = (stage + 1) % kStages) {
    const Tile tile{memory + stage * Tile::kElements};
    device::wait_copy_groups<kAhead - 1>();
    __syncthreads();  // the tile is there, the one before it has been used
    if (kStages > 1) loader.load({memory + (stage + kAhead) % kStages * Tile::kElements});
    const int count = now.count();
    multiply_keys<T, kDim>(tile, q, p.scale_log2, count, scores);
    __syncthreads();
    state.add(tile, scores, count);
    if (kStages == 1) {
      __syncthreads();
      loader.load(tile);
    }
    const std::int32_t split = now.split;
    now.advance(all, blocks);
    if (now.split == split) continue;
    state.add_up();
    if (blocks == 1) {
      total.fold(state);
    } else {
      write_partial(p, place, split, state);
    }
    state.clear();
  }
}

// One block some splits of a batch row and KV head, for up to kQueries query heads.
template <class T, int kDim, int kStages>
__global__ void __launch_bounds__(kBlockThreads, (kBlocks<kDim>))
    attend_few_rows_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(16) std::byte memory[];
  __shared__ bool is_last;
  device::wait_for_kernel_ahead();
  if (p.leaves_room) device::let_next_kernel_start();
  const Place place(p);
  const std::int32_t position = p.batch.position[place.batch_row];
  const std::int32_t rows = p.batch.row_begin[place.item + 1] - p.batch.row_begin[place.item];
  const KVRows kv(p.kv, place.item, p.batch.request[place.item], place.head);
  const Splits all(kv.visible(position));
  const auto blocks = min(gridDim.x, static_cast<unsigned>(max(all.count, 1)));
  // Not before: what does not depend on one another is read at once.
  if (rows > p.most_rows || blockIdx.x >= blocks) return;
  State<T, kDim> total;
  total.clear();
  attend_splits<T, kDim, kStages>(p, place, kv, all, static_cast<std::int32_t>(blocks),
                                  reinterpret_cast<T*>(memory), total);
  if (blocks == 1) {
    if (blockIdx.x == 0) write_out(p, place, all.count, total);
    return;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    std::uint32_t* const done = p.done + blockIdx.z * gridDim.y + blockIdx.y;
    __threadfence();
    is_last = atomicInc(done, blocks - 1) == blocks - 1;
    __threadfence();
  }
  __syncthreads();
  if (is_last) combine<T, kDim>(p, place, all.count, reinterpret_cast<Step*>(memory));
}

/// Splits of the longest row of the batch, as far as the host knows.
index_t most_splits(const AttendArgs& a, const Launch& on) {
  bool is_sparse = a.kv.counts != nullptr;
  index_t longest = 1;
  for (const ScheduledItem& item : a.batch->items) {
    is_sparse = is_sparse && item.selects;
    longest = std::max(longest, item.first + item.rows);
  }
  // A captured step is replayed while lengths grow.
  const index_t ranks = is_sparse ? a.kv.max_budget : longest;
  if (!is_sparse && is_capturing(on.stream)) return kMostSplits;
  return std::clamp(div_up(ranks, index_t{Splits::kStep}), index_t{1}, index_t{kMostSplits});
}

/// Blocks of a row and head, of which `room` run at once.
index_t num_blocks(index_t pairs, index_t splits, index_t room, const Launch& on) {
  constexpr index_t kFewSplits = 16;
  constexpr index_t kUnevenBlocks = 8;  // of more pairs than room: for the last to end together
  if (pairs > room) return std::min(kUnevenBlocks, splits);
  // One block needs no partials, and as many as there are multiprocessors keep the memory busy.
  if (splits <= kFewSplits && 10 * pairs >= 9 * index_t{on.multiprocessors}) return 1;
  return div_up(splits, div_up(splits, std::min(room / pairs, splits)));
}

template <class T>
void launch_rows(const AttendArgs& a, Params p, index_t rows, const Launch& on) {
  dispatch_value<64, 80, 96, 128, 256>(a.kv.k_dim, [&]<index_t kSize>() {
    constexpr int kDim = static_cast<int>(kSize);
    constexpr int kStages = kDim > 128 ? 1 : 2;
    constexpr int kBytes = kStages * Tile<T, kDim>::kElements * static_cast<int>(sizeof(T)) +
                           kQueries * kScoreStride * static_cast<int>(sizeof(float));
    static_assert(kQueries * kMostSplits * static_cast<int>(sizeof(Step)) <= kBytes);
    static_assert(kBytes < kMostSharedBytes);
    const auto kernel = attend_few_rows_kernel<T, kDim, kStages>;
    const index_t pairs = a.kv.kv_heads * p.query_tiles * rows;
    const index_t room = index_t{on.multiprocessors} * kBlocks<kDim>;
    const index_t blocks = num_blocks(pairs, most_splits(a, on), room, on);
    p.leaves_room = pairs * blocks <= on.multiprocessors;
    const dim3 grid(static_cast<unsigned>(blocks),
                    static_cast<unsigned>(a.kv.kv_heads * p.query_tiles),
                    static_cast<unsigned>(rows));
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    // A grid that fills the device spreads evenly only over one that is empty.
    Launch launch = on;
    launch.starts_early = on.starts_early && p.leaves_room;
    launch_early(kernel, grid, kBlockThreads, kBytes, p, launch);
  });
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
           a.out.strides[1],
           false};
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
