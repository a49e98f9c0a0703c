// SPDX-License-Identifier: Apache-2.0
// ids = the sinks, the k largest of the middle, the window, ascending; ties to the lower id, NaN
// below every number.
// Reads the scores of an item and head once: a cluster of blocks keeps in shared memory what fits,
// and reads the rest again. The k-th largest of the maxima of a few scores each is at most the k-th
// of all, and not much lower: few scores reach its leading digit. They alone are sorted out.
#include "launch_early.cuh"
#include "top_k_search.cuh"

namespace spectx::cu {
namespace {

using namespace top_k;

/// Counts the leading digits of every score, or of the largest of 4 or kThreadScores, and keeps the
/// orders.
__device__ void count_maxima(Shared& shared, const CachedChunk& c, std::uint32_t of,
                             std::int32_t* saw_nan) {
  bool has_nan = false;
  const auto count = [&](std::uint32_t order) {
    if (order != 0) atomicAdd(&shared.own[order >> kTopShift], 1U);
  };
  for (std::uint32_t tile = 0; tile < c.count; tile += kTileScores) {
    std::uint32_t order[kVecs][kVecScores];
    c.load_tile(tile, order);
    const bool is_cached = c.is_cached(tile);
    std::uint32_t largest = 0;
#pragma unroll
    for (int v = 0; v < kVecs; ++v) {
      if (is_cached) {
        device::store_vec(c.cache + c.first_of_vec(tile, v),
                          device::Vec<std::uint32_t, kVecScores>{order[v][0], order[v][1],
                                                                 order[v][2], order[v][3]});
      }
      std::uint32_t of_vec = 0;
#pragma unroll
      for (int i = 0; i < kVecScores; ++i) {
        has_nan = has_nan || order[v][i] == kNaNOrder;
        of_vec = max(of_vec, order[v][i]);
        if (of == 1) count(order[v][i]);
      }
      if (of == kVecScores) count(of_vec);
      largest = max(largest, of_vec);
    }
    if (of == kThreadScores) count(largest);
  }
  if (has_nan && saw_nan != nullptr) *saw_nan = 1;
}

/// Where a thread's candidates of a tile go, whose vectors each have some: a warp's vectors are one
/// after the other.
struct Places {
  static constexpr int kBits = 8;
  static constexpr std::uint32_t kField = (1U << kBits) - 1;
  static constexpr std::uint32_t kVecMask = (1U << kVecScores) - 1;
  static_assert(device::kWarpSize * kVecScores <= kField && kVecs * kBits == 32);
  std::uint32_t first[kVecs];  // of each vector's, in the block
  std::uint32_t total;         // of the block

  __device__ Places(std::uint32_t mask, std::uint32_t* shared) {
    std::uint32_t own = 0;  // kBits each
#pragma unroll
    for (int v = 0; v < kVecs; ++v) {
      own |= static_cast<std::uint32_t>(__popc(mask >> (v * kVecScores) & kVecMask)) << (v * kBits);
    }
    const std::uint32_t sums = device::prefix_sum(own);
    const std::uint32_t all = __shfl_sync(device::kAllLanes, sums, device::kWarpSize - 1);
    std::uint32_t of_warp = 0;
#pragma unroll
    for (int v = 0; v < kVecs; ++v) {
      first[v] = of_warp + ((sums - own) >> (v * kBits) & kField);
      of_warp += all >> (v * kBits) & kField;
    }
    const std::uint32_t before = sum_of_warps_before(of_warp, shared, total);
#pragma unroll
    for (int v = 0; v < kVecs; ++v) first[v] += before;
  }
};

/// Lists the scores of at least `floor`, ascending by id. Returns how many there are: of more than
/// kListed none counts as listed.
__device__ std::uint32_t list(Shared& shared, const CachedChunk& c, std::uint32_t floor) {
  std::uint32_t size = 0;
  int turn = 0;
  for (std::uint32_t tile = 0; tile < c.count; tile += kTileScores) {
    std::uint32_t order[kVecs][kVecScores];
    c.reload_tile(tile, order);
    std::uint32_t mask = 0;
#pragma unroll
    for (int i = 0; i < kThreadScores; ++i) {
      mask |= order[i / kVecScores][i % kVecScores] >= floor ? 1U << i : 0U;
    }
    const Places places(mask, shared.scan[turn]);
    turn = 1 - turn;
#pragma unroll
    for (int v = 0; v < kVecs; ++v) {
      std::uint32_t at = size + places.first[v];
      std::uint32_t left = mask >> (v * kVecScores) & Places::kVecMask;
      for (; left != 0; left &= left - 1) {
        const auto i = static_cast<std::uint32_t>(__ffs(static_cast<int>(left)) - 1);
        if (at < kListed) shared.list[at].order = c.first_of_vec(tile, v) + i;
        ++at;
      }
    }
    size += places.total;
  }
  __syncthreads();
  for (std::uint32_t i = threadIdx.x; i < min(size, kListed); i += kThreads) {
    const std::uint32_t at = shared.list[i].order;  // its place in the chunk so far
    shared.list[i] = {c.reload(at), c.first_id + static_cast<std::int32_t>(at)};
  }
  __syncthreads();
  return size;
}

/// Brings the candidates of all blocks to the first, which finishes the selection; false where they
/// are too many for it.
__device__ bool finish_in_one(Shared& shared, const CachedChunk& chunk, std::uint32_t size,
                              std::uint32_t wanted, std::int32_t* to) {
  if (threadIdx.x < gridDim.x) {
    device::add_remote(&shared.listed[blockIdx.x], threadIdx.x, size);
  }
  device::arrive_at_cluster();
  device::wait_for_cluster();
  std::uint32_t total = 0;
  std::uint32_t most = 0;
  for (unsigned block = 0; block < gridDim.x; ++block) {
    total += shared.listed[block];
    most = max(most, shared.listed[block]);
  }
  if (most > kListed || total > chunk.cached / 2) return false;
  auto* const gathered = reinterpret_cast<Candidate*>(chunk.cache);
  if (blockIdx.x == 0) gather_lists(shared, total, gathered);
  device::arrive_at_cluster();
  device::wait_for_cluster();  // no block ends before its list has been read
  if (blockIdx.x > 0) return true;
  const Candidates all{chunk, gathered, total};
  const std::uint32_t lowest = find_lowest<false>(shared, all, wanted);
  write_ids(shared, all, lowest, wanted, {0, 0}, to);
  return true;
}

/// The part of a selection that no score decides.
__device__ void write_ends(const Params& p, const Row& row) {
  std::int32_t* const ids = p.ids + row.index * p.max_budget;
  const std::int32_t thread = static_cast<std::int32_t>(threadIdx.x);
  if (thread == 0) p.counts[row.index] = row.selects ? min(row.length, row.budget) : kAllTokens;
  const bool takes_all = row.selects && !row.has_choice();
  const std::int32_t leading = takes_all ? row.length : (row.has_choice() ? p.sinks : 0);
  for (std::int32_t i = thread; i < leading; i += kThreads) ids[i] = i;
  for (std::int32_t i = thread; row.has_choice() && i < p.window; i += kThreads) {
    ids[row.budget - p.window + i] = row.end + i;
  }
}

// One cluster a row.
__global__ void __launch_bounds__(kThreads, 1) top_k_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(16) std::byte memory[];
  Shared& shared = *reinterpret_cast<Shared*>(device::keep_address(memory));
  for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kThreads) {
    shared.own[i] = shared.sums[0][i] = shared.sums[1][i] = 0;
  }
  if (threadIdx.x < kMostCluster) {
    shared.listed[threadIdx.x] = shared.above[threadIdx.x] = shared.equal[threadIdx.x] = 0;
  }
  __syncthreads();
  device::arrive_at_cluster();
  device::wait_for_kernel_ahead();
  const Row row(p);
  if (!row.is_done() && blockIdx.x == 0) write_ends(p, row);
  std::uint32_t wanted = row.wanted(p);
  const bool has_work = !row.is_done() && row.has_choice();
  const CachedChunk chunk{{Chunk(row)}, reinterpret_cast<std::uint32_t*>(&shared + 1), p.cached};
  if (has_work) {
    const auto all = static_cast<std::uint64_t>(row.end - row.begin);
    // So many that at least `wanted` maxima are there, and that the k-th of them is not too low.
    const std::uint32_t of = all >= std::uint64_t{32} * wanted  ? kThreadScores
                             : all >= std::uint64_t{8} * wanted ? kVecScores
                                                                : 1;
    count_maxima(shared, chunk, of, p.saw_nan);
  }
  device::wait_for_cluster();  // every block's counts are 0 at first
  if (!has_work || wanted == 0) return;
  std::uint32_t pivot_wanted = wanted;
  const std::uint32_t pivot = find_digit<true>(shared, 0, pivot_wanted);
  const std::uint32_t size = list(shared, chunk, max(pivot << kTopShift, kNaNOrder));
  device::let_next_kernel_start();
  std::int32_t* const to = p.ids + row.index * p.max_budget + p.sinks;
  if (finish_in_one(shared, chunk, size, wanted, to)) return;
  const bool is_listed = size <= kListed;
  const Candidates all{chunk, is_listed ? shared.list : nullptr, is_listed ? size : chunk.count};
  const std::uint32_t lowest = find_lowest<true>(shared, all, wanted);
  write_ids(shared, all, lowest, wanted, count_before(shared, all, lowest), to);
}

}  // namespace

void launch_top_k(const TopKArgs& a, const Launch& on) {
  const index_t kv_heads = num_kv_heads(a.head_of_kv_head, a.scores.shape[1]);
  const index_t rows = static_cast<index_t>(a.batch->items.size()) * kv_heads;
  if (rows == 0) return;
  // Nothing here depends on a length, so that a captured launch serves every one.
  const index_t most_scores = a.scores.shape[2];
  constexpr index_t kLeastScores = 2048;  // of a block: fewer are not worth the cluster's barriers
  index_t blocks = 1;
  while (on.has_clusters && blocks < kMostCluster &&
         2 * blocks * rows <= (blocks == 1 ? 4 : 3) * index_t{on.multiprocessors} / 4 &&
         2 * blocks * kLeastScores <= most_scores) {
    blocks *= 2;
  }
  // A block's scores, and as many candidates of the row as it may want: what fits.
  const index_t part = div_up(most_scores + kVecScores, blocks) + kVecScores;
  const index_t candidates = 4 * a.out.max_budget;
  const index_t room = (index_t{on.shared_bytes} - index_t{sizeof(Shared)}) / index_t{sizeof(float)};
  const index_t cached =
      std::min(div_up(std::max(part, candidates), kWarpScores), room / kWarpScores) * kWarpScores;
  Params p{rows_of<const float>(a.scores),
           view_of(*a.batch),
           static_cast<std::int32_t>(a.rule.budget),
           static_cast<std::int32_t>(a.rule.sinks),
           static_cast<std::int32_t>(a.rule.recent_window),
           index_of(a.budgets),
           index_of(a.head_of_kv_head),
           a.out.ids.data,
           a.out.counts.data,
           a.out.max_budget,
           kv_heads,
           a.saw_nan,
           0,
           static_cast<std::uint32_t>(cached)};
  // The most, not `bytes`: it is the process's, and another backend may launch with more just now.
  check(cudaFuncSetAttribute(top_k_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             on.shared_bytes));
  const int bytes = static_cast<int>(sizeof(Shared)) + static_cast<int>(p.cached * sizeof(float));
  constexpr index_t kMostRows = 65'535;  // of a grid
  for (; p.first_row < rows; p.first_row += kMostRows) {
    const dim3 grid(static_cast<unsigned>(blocks),
                    static_cast<unsigned>(std::min(kMostRows, rows - p.first_row)));
    launch_early(top_k_kernel, grid, kThreads, bytes, p, on, static_cast<unsigned>(blocks));
  }
}

}  // namespace spectx::cu
