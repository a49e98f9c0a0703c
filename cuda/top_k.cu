// SPDX-License-Identifier: Apache-2.0
// ids = the sinks, the k largest of the middle, the window, ascending; ties to the lower id, NaN
// below every number.
// Reads the scores of an item and head six times, from the cache but for the first: four passes of
// a radix select, one that counts, one that writes.
#include "device/block.cuh"
#include "kernels.hpp"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 1024;  // one block a row of scores: as many loads in flight as can be
constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;
constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kUnroll = 4;

struct Params {
  Rows<const float> scores;
  BatchView batch;
  std::int32_t budget, sinks, window;
  const std::int32_t *budgets, *head_of_kv_head;  // budgets may be null
  std::int32_t *ids, *counts;
  index_t max_budget, kv_heads;
  std::int32_t* saw_nan;
};

/// Bits that order like the scores: -0 equals 0, and NaN, the lowest, is 0.
__device__ inline std::uint32_t order_of(float score) {
  constexpr std::uint32_t kSign = 0x80000000U;
  constexpr std::uint32_t kInfinity = 0x7f800000U;
  const std::uint32_t bits = __float_as_uint(score);
  if ((bits & ~kSign) > kInfinity) return 0;
  if ((bits & ~kSign) == 0) return kSign;
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

/// A histogram of digits with one column a lane: no two lanes of a warp meet in a bank.
struct Histogram {
  std::uint32_t count[kDigits][device::kWarpSize];

  __device__ void clear() {
    for (int i = static_cast<int>(threadIdx.x); i < kDigits * device::kWarpSize;
         i += kBlockThreads) {
      count[0][i] = 0;
    }
  }
  __device__ void add(std::uint32_t digit) { atomicAdd(&count[digit][device::lane_index()], 1U); }
};

struct Shared {
  Histogram histogram;
  std::uint32_t scan[device::kMostWarps];
  std::uint32_t digit, wanted;
  std::uint32_t above[kBlockWarps], ties[kBlockWarps];
  int has_nan;
};

/// The digit that holds the `wanted`-th largest, and how many of it are wanted: into `shared`.
__device__ void find_digit(Shared& shared, std::uint32_t wanted) {
  // Thread t adds up digit kDigits - 1 - t, so that the scan runs from the largest.
  const int thread = static_cast<int>(threadIdx.x);
  std::uint32_t mine = 0;
  if (thread < kDigits) {
    const std::uint32_t* const columns = shared.histogram.count[kDigits - 1 - thread];
    for (int i = 0; i < device::kWarpSize; ++i) {
      mine += columns[(i + thread) % device::kWarpSize];  // each lane in its own bank
    }
  }
  std::uint32_t total = 0;
  const std::uint32_t before = device::block_exclusive_sum(mine, shared.scan, total);
  if (thread < kDigits && before < wanted && wanted <= before + mine) {
    shared.digit = static_cast<std::uint32_t>(kDigits - 1 - thread);
    shared.wanted = wanted - before;
  }
  __syncthreads();
}

/// The order of the `wanted`-th largest score, wanted in [1, count]; `ties`: how many equal to it
/// belong to the largest. Notes NaN in shared.has_nan.
__device__ std::uint32_t select(Shared& shared, const float* scores, index_t count,
                                std::uint32_t wanted, std::uint32_t& ties) {
  std::uint32_t prefix = 0;
  std::uint32_t mask = 0;
  bool has_nan = false;
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    shared.histogram.clear();
    __syncthreads();
    for (index_t base = threadIdx.x; base < count; base += kUnroll * kBlockThreads) {
      std::uint32_t order[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const index_t i = base + u * kBlockThreads;
        order[u] = i < count ? order_of(scores[i]) : 0;
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (base + u * kBlockThreads >= count) break;
        has_nan = has_nan || order[u] == 0;
        if ((order[u] & mask) == prefix) {
          shared.histogram.add((order[u] >> shift) & (kDigits - 1));
        }
      }
    }
    __syncthreads();
    find_digit(shared, wanted);
    prefix |= shared.digit << shift;
    mask |= static_cast<std::uint32_t>(kDigits - 1) << shift;
    wanted = shared.wanted;
  }
  if (has_nan) shared.has_nan = 1;
  ties = wanted;
  return prefix;
}

/// Writes the ids of scores above `lowest`, and of the first `ties` equal to it, in order. A warp
/// takes a stretch: it counts, then it knows where it writes.
__device__ void write_ids(Shared& shared, const float* scores, index_t count, std::uint32_t lowest,
                          std::uint32_t ties, std::int32_t first_id, std::int32_t* to) {
  const int warp = device::warp_index();
  const index_t stretch = div_up(div_up(count, kBlockWarps), device::kWarpSize) * device::kWarpSize;
  const index_t begin = min(warp * stretch, count);
  const index_t end = min(begin + stretch, count);
  std::uint32_t above = 0;
  std::uint32_t equal = 0;
  for (index_t i = begin + device::lane_index(); i < end; i += device::kWarpSize) {
    const std::uint32_t order = order_of(scores[i]);
    above += order > lowest ? 1 : 0;
    equal += order == lowest ? 1 : 0;
  }
  above = __reduce_add_sync(device::kAllLanes, above);
  equal = __reduce_add_sync(device::kAllLanes, equal);
  if (device::lane_index() == 0) {
    shared.above[warp] = above;
    shared.ties[warp] = equal;
  }
  __syncthreads();
  above = equal = 0;
  for (int w = 0; w < warp; ++w) {
    above += shared.above[w];
    equal += shared.ties[w];
  }
  for (index_t base = begin; base < end; base += device::kWarpSize) {
    const index_t i = base + device::lane_index();
    const std::uint32_t order = i < end ? order_of(scores[i]) : 0;
    const bool is_above = i < end && order > lowest;
    const bool is_equal = i < end && order == lowest;
    int all_above = 0;
    int all_equal = 0;
    const std::uint32_t my_above =
        above + static_cast<std::uint32_t>(device::rank_in_warp(is_above, all_above));
    const std::uint32_t my_equal =
        equal + static_cast<std::uint32_t>(device::rank_in_warp(is_equal, all_equal));
    if (is_above || (is_equal && my_equal < ties)) {
      to[my_above + min(my_equal, ties)] = first_id + static_cast<std::int32_t>(i);
    }
    above += static_cast<std::uint32_t>(all_above);
    equal += static_cast<std::uint32_t>(all_equal);
  }
}

// One block an item and KV head of the target.
__global__ void __launch_bounds__(kBlockThreads) top_k_kernel(const __grid_constant__ Params p) {
  __shared__ Shared shared;
  const index_t item = blockIdx.x / p.kv_heads;
  const std::int32_t budget = p.budgets == nullptr ? p.budget : p.budgets[item];
  if (budget == 0) return;
  const std::int32_t length = p.batch.length[item];
  std::int32_t* const ids = p.ids + blockIdx.x * p.max_budget;
  const std::int32_t thread = static_cast<std::int32_t>(threadIdx.x);
  if (p.batch.selects[item] == 0) {
    if (thread == 0) p.counts[blockIdx.x] = kAllTokens;
    return;
  }
  if (thread == 0) p.counts[blockIdx.x] = min(length, budget);
  if (length <= budget) {
    for (std::int32_t i = thread; i < length; i += kBlockThreads) ids[i] = i;
    return;
  }
  const std::int32_t end = length - p.window;
  for (std::int32_t i = thread; i < p.sinks; i += kBlockThreads) ids[i] = i;
  for (std::int32_t i = thread; i < p.window; i += kBlockThreads) {
    ids[budget - p.window + i] = end + i;
  }
  const index_t head = serving_head(p.head_of_kv_head, blockIdx.x % p.kv_heads);
  const float* const scores = p.scores.row(item, head) + p.sinks;
  if (thread == 0) shared.has_nan = 0;
  std::uint32_t ties = 0;
  const std::uint32_t lowest =
      select(shared, scores, end - p.sinks,
             static_cast<std::uint32_t>(budget - p.sinks - p.window), ties);
  write_ids(shared, scores, end - p.sinks, lowest, ties, p.sinks, ids + p.sinks);
  if (thread == 0 && shared.has_nan != 0 && p.saw_nan != nullptr) *p.saw_nan = 1;
}

}  // namespace

void launch_top_k(const TopKArgs& a, const Launch& on) {
  const index_t kv_heads = num_kv_heads(a.head_of_kv_head, a.scores.shape[1]);
  const index_t blocks = static_cast<index_t>(a.batch->items.size()) * kv_heads;
  if (blocks == 0) return;
  const Params p{rows_of<const float>(a.scores),
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
                 a.saw_nan};
  top_k_kernel<<<grid_of(blocks), kBlockThreads, 0, on.stream>>>(p);
  check(cudaGetLastError());
}

}  // namespace spectx::cu
