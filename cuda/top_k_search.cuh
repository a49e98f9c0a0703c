// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/block.cuh"
#include "device/cluster.cuh"
#include "top_k_rows.cuh"

// The k-th largest of the numbers of a cluster's blocks, digit by digit.
namespace spectx::cu::top_k {

using device::kMostCluster;
inline constexpr int kTopBits = 11;  // of the first digit, as of the second; the third has the rest
inline constexpr int kDigits = 1 << kTopBits;
inline constexpr int kTopShift = 32 - kTopBits;
inline constexpr int kMiddleShift = kTopShift - kTopBits;
inline constexpr std::uint32_t kListed = 4096;  // candidates of a block; of more none is listed

/// A score that may be among the k largest.
struct alignas(8) Candidate {
  std::uint32_t order;
  std::int32_t id;
};

struct Shared {
  std::uint32_t own[kDigits];      // a digit's of this block; 0 between counts
  std::uint32_t sums[2][kDigits];  // of the cluster, of every other digit
  std::uint32_t scan[2][device::kMostWarps];
  std::uint32_t listed[kMostCluster], above[kMostCluster], equal[kMostCluster];  // of the blocks
  std::uint32_t digit, wanted;
  alignas(16) Candidate list[kListed];
};

/// Of the numbers that the warps call with, the sum of those before this one. `total`: of all.
/// `shared` is not that of the call before.
__device__ inline std::uint32_t sum_of_warps_before(std::uint32_t number, std::uint32_t* shared,
                                                    std::uint32_t& total) {
  const int lane = device::lane_index();
  if (lane == device::kWarpSize - 1) shared[device::warp_index()] = number;
  __syncthreads();
  const std::uint32_t own = shared[lane];
  total = __reduce_add_sync(device::kAllLanes, own);
  return __reduce_add_sync(device::kAllLanes, lane < device::warp_index() ? own : 0);
}
/// The sum of the threads' numbers before this one, the same way.
__device__ inline std::uint32_t sum_before(std::uint32_t number, std::uint32_t* shared,
                                           std::uint32_t& total) {
  const std::uint32_t sum = device::prefix_sum(number);
  return sum_of_warps_before(sum, shared, total) + sum - number;
}
static_assert(kThreads / device::kWarpSize == device::kWarpSize);

/// The digit that holds the `wanted`-th largest of what the block, or all of the cluster, have
/// counted in `own`; `wanted` becomes how many of it are. `turn` is 0 and 1 in turn.
template <bool kOfCluster>
__device__ std::uint32_t find_digit(Shared& shared, int turn, std::uint32_t& wanted) {
  std::uint32_t* const sums = kOfCluster ? shared.sums[turn] : shared.own;
  __syncthreads();
  if constexpr (kOfCluster) {
    for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kThreads) {
      const std::uint32_t count = shared.own[i];
      if (count == 0) continue;
      shared.own[i] = 0;
      for (unsigned block = 0; block < gridDim.x; ++block) {
        device::add_remote(sums + i, block, count);
      }
    }
    device::arrive_at_cluster();
    device::wait_for_cluster();
  }
  constexpr int kMine = kDigits / kThreads;
  // Thread 0 has the largest digits. Who adds to them again does so a whole digit later.
  const int first = kDigits - kMine * (static_cast<int>(threadIdx.x) + 1);
  std::uint32_t count[kMine];
  std::uint32_t sum = 0;
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    count[i] = sums[first + i];
    sums[first + i] = 0;
    sum += count[i];
  }
  std::uint32_t total = 0;
  std::uint32_t before = sum_before(sum, shared.scan[turn], total);
  if (before < wanted && wanted <= before + sum) {
#pragma unroll
    for (int i = kMine - 1; i >= 0; --i) {
      if (before < wanted && wanted <= before + count[i]) {
        shared.digit = static_cast<std::uint32_t>(first + i);
        shared.wanted = wanted - before;
      }
      before += count[i];
    }
  }
  __syncthreads();
  wanted = shared.wanted;
  return shared.digit;
}

/// What may be among the k largest, ascending by id: a list, or all of a chunk.
struct Candidates {
  const CachedChunk& chunk;
  const Candidate* list;  // null: all
  std::uint32_t count;

  /// The orders of some neighbours, 0 where there is none.
  __device__ void load(std::uint32_t first, std::uint32_t (&order)[kVecScores]) const {
    if (list == nullptr) return chunk.reload(first, order);
#pragma unroll
    for (int i = 0; i < kVecScores; ++i) {
      const std::uint32_t at = first + static_cast<std::uint32_t>(i);
      order[i] = at < count ? list[at].order : 0;
    }
  }
  __device__ std::int32_t id(std::uint32_t i) const {
    return list != nullptr ? list[i].id : chunk.first_id + static_cast<std::int32_t>(i);
  }
};

/// Counts the digits from bit kShift to kEnd of candidates whose bits from kEnd are `prefix`.
template <int kEnd, int kShift>
__device__ void count_digits(Shared& shared, const Candidates& all, std::uint32_t prefix) {
  for (std::uint32_t first = threadIdx.x * kVecScores; first < all.count;
       first += kThreads * kVecScores) {
    std::uint32_t order[kVecScores];
    all.load(first, order);
#pragma unroll
    for (int i = 0; i < kVecScores; ++i) {
      const std::uint64_t own = order[i];
      if (own == 0 || own >> kEnd != prefix) continue;
      atomicAdd(&shared.own[own >> kShift & ((1U << (kEnd - kShift)) - 1)], 1U);
    }
  }
}

/// Calls body(i, order, above, equal) for the candidates, with how many of the block's before it
/// are above and equal to `lowest`. Returns the sums.
template <class Body>
__device__ uint2 for_ranks(Shared& shared, const Candidates& all, std::uint32_t lowest, Body body) {
  constexpr int kEqualShift = 16;
  static_assert(kThreads * kVecScores < 1 << kEqualShift);
  uint2 sums{0, 0};
  int turn = 0;
  for (std::uint32_t base = 0; base < all.count; base += kThreads * kVecScores) {
    const std::uint32_t first = base + threadIdx.x * kVecScores;
    std::uint32_t order[kVecScores] = {};
    if (first < all.count) all.load(first, order);
    std::uint32_t mine = 0;
#pragma unroll
    for (int i = 0; i < kVecScores; ++i) {
      mine += (order[i] > lowest ? 1U : 0U) + (order[i] == lowest ? 1U << kEqualShift : 0U);
    }
    std::uint32_t total = 0;
    const std::uint32_t before = sum_before(mine, shared.scan[turn], total);
    turn = 1 - turn;
    uint2 rank{sums.x + (before & ((1U << kEqualShift) - 1)), sums.y + (before >> kEqualShift)};
#pragma unroll
    for (int i = 0; i < kVecScores; ++i) {
      if (order[i] >= lowest) body(first + static_cast<std::uint32_t>(i), order[i], rank);
      rank.x += order[i] > lowest ? 1 : 0;
      rank.y += order[i] == lowest ? 1 : 0;
    }
    sums.x += total & ((1U << kEqualShift) - 1);
    sums.y += total >> kEqualShift;
  }
  __syncthreads();
  return sums;
}

/// The `wanted`-th largest order; `wanted` becomes how many equal to it are.
template <bool kOfCluster>
__device__ std::uint32_t find_lowest(Shared& shared, const Candidates& all, std::uint32_t& wanted) {
  count_digits<32, kTopShift>(shared, all, 0);
  std::uint32_t prefix = find_digit<kOfCluster>(shared, 1, wanted);
  count_digits<kTopShift, kMiddleShift>(shared, all, prefix);
  prefix = prefix << kTopBits | find_digit<kOfCluster>(shared, 0, wanted);
  count_digits<kMiddleShift, 0>(shared, all, prefix);
  return prefix << kMiddleShift | find_digit<kOfCluster>(shared, 1, wanted);
}

/// Writes the ids of candidates above `lowest`, and of the first `ties` equal to it; `before` are
/// those of the blocks before.
__device__ inline void write_ids(Shared& shared, const Candidates& all, std::uint32_t lowest,
                                 std::uint32_t ties, uint2 before, std::int32_t* to) {
  for_ranks(shared, all, lowest, [&](std::uint32_t i, std::uint32_t order, uint2 rank) {
    const std::uint32_t above = before.x + rank.x;
    const std::uint32_t equal = before.y + rank.y;
    if (order > lowest || equal < ties) to[above + min(equal, ties)] = all.id(i);
  });
}

/// What the blocks before this one have above and equal to `lowest`.
__device__ inline uint2 count_before(Shared& shared, const Candidates& all, std::uint32_t lowest) {
  const uint2 own = for_ranks(shared, all, lowest, [](std::uint32_t, std::uint32_t, uint2) {});
  if (threadIdx.x < gridDim.x) {
    device::add_remote(&shared.above[blockIdx.x], threadIdx.x, own.x);
    device::add_remote(&shared.equal[blockIdx.x], threadIdx.x, own.y);
  }
  device::arrive_at_cluster();
  device::wait_for_cluster();
  uint2 before{0, 0};
  for (unsigned block = 0; block < blockIdx.x; ++block) {
    before.x += shared.above[block];
    before.y += shared.equal[block];
  }
  return before;
}

/// The lists of all blocks, one after the other.
__device__ inline void gather_lists(const Shared& shared, std::uint32_t total, Candidate* to) {
  for (std::uint32_t base = 0; base < total; base += kThreads * kVecScores) {
    Candidate candidate[kVecScores];
#pragma unroll
    for (int i = 0; i < kVecScores; ++i) {
      std::uint32_t at = base + static_cast<std::uint32_t>(i * kThreads) + threadIdx.x;
      if (at >= total) break;
      unsigned block = 0;
      while (at >= shared.listed[block]) at -= shared.listed[block++];
      const uint2 both =
          device::load_remote(reinterpret_cast<const uint2*>(shared.list + at), block);
      candidate[i] = {both.x, static_cast<std::int32_t>(both.y)};
    }
#pragma unroll
    for (int i = 0; i < kVecScores; ++i) {
      const std::uint32_t at = base + static_cast<std::uint32_t>(i * kThreads) + threadIdx.x;
      if (at < total) to[at] = candidate[i];
    }
  }
  __syncthreads();
}

}  // namespace spectx::cu::top_k
