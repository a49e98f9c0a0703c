// SPDX-License-Identifier: Apache-2.0
// ids = the sinks, the k largest of the middle, the window, ascending; ties to the lower id, NaN
// below every number.
// Reads the scores of an item and head twice, the second time from the cache where they fit:
// latency bound for few rows. The first kernel counts their leading digits; the second keeps those
// that reach the digit of the k-th, and the last of its blocks to end finds the k-th among them.
#include "launch_early.cuh"
#include "top_k_candidates.cuh"

namespace spectx::cu {
namespace {

using namespace top_k;

constexpr int kCopies = 4;  // of the counters of a block

// One block a chunk: adds up the leading digits of its scores. Neighbouring lanes count apart: many
// scores share a digit.
__global__ void __launch_bounds__(kBlockThreads) count_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(16) std::byte memory[];
  using Copies = device::Vec<std::uint32_t, kCopies>;
  auto* const histogram = reinterpret_cast<Copies*>(memory);  // [kDigits]
  device::wait_for_kernel_ahead();
  device::let_next_kernel_start();
  const Row row(p);
  if (row.is_done() || !row.has_choice()) return;
  const Chunk chunk(row, blockIdx.x);
  for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kBlockThreads) histogram[i] = {};
  __syncthreads();
  bool has_nan = false;
  for_tiles<false>(chunk, [&](std::uint32_t, const float(&scores)[kThreadScores], unsigned there) {
#pragma unroll
    for (int i = 0; i < kThreadScores; ++i) {
      if ((there >> i & 1U) == 0) continue;
      const std::uint32_t order = order_of(scores[i]);
      has_nan = has_nan || order == 0;
      atomicAdd(&histogram[order >> kTopShift].element[threadIdx.x % kCopies], 1U);
    }
  });
  has_nan = __syncthreads_or(has_nan) != 0;
  std::uint32_t* const sums = p.zeros + blockIdx.y * kRowWords;
  for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kBlockThreads) {
    const Copies own = histogram[i];
    std::uint32_t sum = 0;
#pragma unroll
    for (int c = 0; c < kCopies; ++c) sum += own.element[c];
    if (sum != 0) atomicAdd(&sums[i], sum);
  }
  if (has_nan && threadIdx.x == 0 && p.saw_nan != nullptr) *p.saw_nan = 1;
}

/// Lists the chunk's scores whose leading digit is at least `digit`, ascending by id. Returns how
/// many.
__device__ std::uint32_t filter(Shared& shared, const Chunk& chunk, std::uint32_t digit,
                                Candidate* list) {
  std::uint32_t size = 0;
  for_tiles<true>(
      chunk, [&](std::uint32_t tile, const float(&scores)[kThreadScores], unsigned kept) {
        std::uint32_t order[kThreadScores];
#pragma unroll
        for (int i = 0; i < kThreadScores; ++i) {
          order[i] = order_of(scores[i]);
          if (order[i] >> kTopShift < digit) kept &= ~(1U << i);
        }
        std::uint32_t total = 0;
        std::uint32_t to = size + device::block_exclusive_sum(
                                      static_cast<std::uint32_t>(__popc(kept)), shared.scan, total);
        const std::int32_t id = chunk.first_id + static_cast<std::int32_t>(tile) +
                                static_cast<std::int32_t>(threadIdx.x) * kThreadScores;
#pragma unroll
        for (int i = 0; i < kThreadScores; ++i) {
          if ((kept >> i & 1U) != 0) list[to++] = {order[i], id + i};
        }
        size += total;
      });
  return size;
}

/// The last block of a row: its k-th and what is above it.
__device__ void finish(const Params& p, const Row& row, std::uint32_t chunk_size,
                       std::uint32_t digit, std::uint32_t wanted, Candidate* cache,
                       Shared& shared) {
  if (device::warp_index() == 0) {
    const unsigned lane = threadIdx.x;
    const std::uint32_t size =
        lane < gridDim.x ? __ldcg(p.list_sizes + blockIdx.y * kMostChunks + lane) : 0;
    std::uint32_t sum = size;
#pragma unroll
    for (int step = 1; step < device::kWarpSize; step *= 2) {
      const std::uint32_t before = __shfl_up_sync(device::kAllLanes, sum, step);
      if (lane >= static_cast<unsigned>(step)) sum += before;
    }
    shared.first[lane] = sum - size;
    if (lane == kMostChunks - 1) shared.first[kMostChunks] = sum;
  }
  for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kBlockThreads) {
    p.zeros[blockIdx.y * kRowWords + i] = 0;
  }
  __syncthreads();
  const Candidates all{p.lists + blockIdx.y * p.list_stride, chunk_size, shared.first, cache,
                       shared.first[kMostChunks]};
  for (std::uint32_t i = threadIdx.x; i < min(all.count, kCached); i += kBlockThreads) {
    cache[i] = all.read(i);
  }
  const std::uint32_t lowest = find_lowest(shared, all, digit, wanted);
  write_ids(shared, all, lowest, wanted, p.ids + row.index * p.max_budget + p.sinks);
}

// One block a chunk.
__global__ void __launch_bounds__(kBlockThreads) select_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(16) std::byte memory[];  // Candidate [kCached]
  __shared__ Shared shared;
  device::wait_for_kernel_ahead();
  const Row row(p);
  if (row.is_done()) return;
  std::int32_t* const ids = p.ids + row.index * p.max_budget;
  const std::int32_t thread = static_cast<std::int32_t>(threadIdx.x);
  if (blockIdx.x == 0) {
    if (thread == 0) p.counts[row.index] = row.selects ? min(row.length, row.budget) : kAllTokens;
    const bool takes_all = row.selects && !row.has_choice();
    const std::int32_t leading = takes_all ? row.length : (row.has_choice() ? p.sinks : 0);
    for (std::int32_t i = thread; i < leading; i += kBlockThreads) ids[i] = i;
    for (std::int32_t i = thread; row.has_choice() && i < p.window; i += kBlockThreads) {
      ids[row.budget - p.window + i] = row.end + i;
    }
  }
  if (!row.has_choice()) return;
  const Chunk chunk(row, blockIdx.x);
  std::uint32_t* const sums = p.zeros + blockIdx.y * kRowWords;
  std::uint32_t wanted = row.wanted(p);
  const std::uint32_t digit = find_digit<kDigits>(shared, sums, wanted);
  Candidate* const list = p.lists + blockIdx.y * p.list_stride;
  const std::uint32_t size = filter(shared, chunk, digit, list + chunk.offset);
  if (thread == 0) p.list_sizes[blockIdx.y * kMostChunks + blockIdx.x] = size;
  __syncthreads();
  if (thread == 0) {
    __threadfence();
    shared.is_last = atomicInc(&sums[kDigits], gridDim.x - 1) == gridDim.x - 1 ? 1 : 0;
    __threadfence();
  }
  __syncthreads();
  if (shared.is_last == 0) return;
  finish(p, row, chunk.size, digit, wanted, reinterpret_cast<Candidate*>(memory), shared);
}

}  // namespace

void launch_top_k(const TopKArgs& a, const Launch& on) {
  const index_t kv_heads = num_kv_heads(a.head_of_kv_head, a.scores.shape[1]);
  const index_t rows = static_cast<index_t>(a.batch->items.size()) * kv_heads;
  if (rows == 0) return;
  // Nothing here depends on a length, so that a captured launch serves every one.
  const index_t most_scores = a.scores.shape[2];
  const index_t list_stride = most_scores + kVecScores + kMostChunks * kThreadScores;
  const index_t row_bytes = list_stride * index_t{sizeof(Candidate)} + kMostChunks * index_t{4};
  const index_t fitting =
      std::clamp(kMostScratchBytes / row_bytes, index_t{1}, kZeroWords / kRowWords);
  const index_t portion = div_up(rows, div_up(rows, fitting));
  constexpr index_t kManyRows = 32;  // chunks of so many would be too short for their lists
  const index_t blocks = on.multiprocessors * (portion < kManyRows ? index_t{2} : index_t{1});
  const index_t useful = std::min<index_t>(div_up(most_scores, kTileScores), kMostChunks);
  const index_t room = std::max<index_t>(blocks / portion, 1);  // one more would be a second wave
  const auto chunks = static_cast<unsigned>(std::clamp<index_t>(useful, 1, room));
  auto* const lists = reinterpret_cast<Candidate*>(on.scratch.reserve(portion * row_bytes));
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
           on.zeros,
           lists,
           reinterpret_cast<std::uint32_t*>(lists + portion * list_stride),
           list_stride};
  constexpr int kCacheBytes = kCached * static_cast<int>(sizeof(Candidate));
  constexpr int kHistogramBytes = kDigits * kCopies * static_cast<int>(sizeof(std::uint32_t));
  static_assert(kCacheBytes + sizeof(Shared) <= kMostSharedBytes);
  static_assert(kHistogramBytes < kMostSharedBytes);
  check(cudaFuncSetAttribute(count_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kHistogramBytes));
  check(cudaFuncSetAttribute(select_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kCacheBytes));
  for (; p.first_row < rows; p.first_row += portion) {
    const dim3 grid(chunks, static_cast<unsigned>(std::min(portion, rows - p.first_row)));
    launch_early(count_kernel, grid, kBlockThreads, kHistogramBytes, p, on);
    launch_early(select_kernel, grid, kBlockThreads, kCacheBytes, p, on);
  }
}

}  // namespace spectx::cu
