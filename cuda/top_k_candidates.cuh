// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/block.cuh"
#include "top_k_rows.cuh"

// The k-th largest of the scores that reach its leading digit; one block takes a row.
namespace spectx::cu::top_k {

struct Shared {
  alignas(16) std::uint32_t histogram[kLowDigits];
  std::uint32_t scan[device::kMostWarps];
  std::uint32_t first[kMostChunks + 1];  // candidates before those of a chunk
  std::uint32_t digit, wanted;
  int is_last;
};

/// The digit that holds the `wanted`-th largest; `wanted` becomes how many of it are.
template <int kCount>
__device__ std::uint32_t find_digit(Shared& shared, const std::uint32_t* histogram,
                                    std::uint32_t& wanted) {
  constexpr int kMine = kCount / kBlockThreads;
  // Thread 0 has the largest digits.
  const int first = kCount - kMine * (static_cast<int>(threadIdx.x) + 1);
  constexpr int kVec = kMine < 4 ? kMine : 4;
  std::uint32_t count[kMine];
  std::uint32_t sum = 0;
#pragma unroll
  for (int i = 0; i < kMine; i += kVec) {
    const auto vec = device::load_vec<std::uint32_t, kVec>(histogram + first + i);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      count[i + j] = vec.element[j];
      sum += vec.element[j];
    }
  }
  std::uint32_t total = 0;
  std::uint32_t before = device::block_exclusive_sum(sum, shared.scan, total);
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

/// The candidates of a row, ascending by id.
struct Candidates {
  const Candidate* list;
  std::uint32_t chunk_size;
  const std::uint32_t* first;  // [kMostChunks + 1]
  Candidate* cache;            // [kCached]
  std::uint32_t count;

  __device__ Candidate read(std::uint32_t i) const {
    int chunk = 0;
#pragma unroll
    for (int step = kMostChunks / 2; step > 0; step /= 2) {
      if (first[chunk + step] <= i) chunk += step;
    }
    const auto at =
        reinterpret_cast<const std::uint64_t*>(list + std::uint64_t{chunk_size} * chunk);
    const std::uint64_t both = __ldcg(at + (i - first[chunk]));
    return {static_cast<std::uint32_t>(both), static_cast<std::int32_t>(both >> 32)};
  }
  __device__ Candidate get(std::uint32_t i) const { return i < kCached ? cache[i] : read(i); }
};
static_assert(sizeof(Candidate) == sizeof(std::uint64_t));

/// The `wanted`-th largest order, whose leading digit is `digit`, of which `wanted` are wanted;
/// `wanted` becomes how many equal to it are.
__device__ inline std::uint32_t find_lowest(Shared& shared, const Candidates& all,
                                            std::uint32_t digit, std::uint32_t& wanted) {
  std::uint32_t prefix = digit;
  for (int shift = kTopShift; shift > 0; shift -= kLowBits) {
    for (int i = static_cast<int>(threadIdx.x); i < kLowDigits; i += kBlockThreads) {
      shared.histogram[i] = 0;
    }
    __syncthreads();
    const int next = shift - kLowBits;
    for (std::uint32_t i = threadIdx.x; i < all.count; i += kBlockThreads) {
      const std::uint32_t order = all.get(i).order;
      if (order >> shift == prefix)
        atomicAdd(&shared.histogram[order >> next & (kLowDigits - 1)], 1U);
    }
    __syncthreads();
    prefix = prefix << kLowBits | find_digit<kLowDigits>(shared, shared.histogram, wanted);
  }
  return prefix;
}

/// Writes the ids of candidates above `lowest`, and of the first `ties` equal to it, in order.
__device__ inline void write_ids(Shared& shared, const Candidates& all, std::uint32_t lowest,
                                 std::uint32_t ties, std::int32_t* to) {
  constexpr int kEqualShift = 16;  // both sums are at most kTileScores
  std::uint32_t above = 0;
  std::uint32_t equal = 0;
  for (std::uint32_t tile = 0; tile < all.count; tile += kTileScores) {
    const std::uint32_t first = tile + threadIdx.x * kThreadScores;
    Candidate mine[kThreadScores];
    std::uint32_t sums = 0;
#pragma unroll
    for (int i = 0; i < kThreadScores; ++i) {
      mine[i] = first + i < all.count ? all.get(first + i) : Candidate{0, -1};
      if (mine[i].id >= 0 && mine[i].order > lowest) sums += 1;
      if (mine[i].id >= 0 && mine[i].order == lowest) sums += 1U << kEqualShift;
    }
    std::uint32_t total = 0;
    const std::uint32_t before = device::block_exclusive_sum(sums, shared.scan, total);
    std::uint32_t my_above = above + (before & 0xffffU);
    std::uint32_t my_equal = equal + (before >> kEqualShift);
#pragma unroll
    for (int i = 0; i < kThreadScores; ++i) {
      if (mine[i].id < 0) continue;
      if (mine[i].order > lowest) to[my_above++ + min(my_equal, ties)] = mine[i].id;
      if (mine[i].order == lowest && my_equal++ < ties) to[my_above + my_equal - 1] = mine[i].id;
    }
    above += total & 0xffffU;
    equal += total >> kEqualShift;
  }
}

}  // namespace spectx::cu::top_k
