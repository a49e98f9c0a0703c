// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/block.cuh"
#include "slot_map.cuh"
#include "slot_sets.cuh"

// Which slots of a KV head the missing ids of a selection take; one block finds them.
namespace spectx::cu::slots {

inline constexpr int kDigitBits = 8;
inline constexpr int kDigits = 1 << kDigitBits;
inline constexpr std::uint32_t kFree = ~0U;

struct Shared {
  std::uint64_t scan[device::kMostWarps];
  std::uint32_t histogram[kDigits];
  std::uint16_t counts[kDigits][kWarps];  // of a digit in a warp's part
  std::uint32_t digit, wanted;
  std::uint32_t tally[2][kWarps][2];  // of Tally
  std::uint32_t longest;              // since a slot was used that may be taken
  std::int32_t cached;                // ids that were cached before the step
  bool has_free;
};

/// Of a block: the sum of what the threads before this one count, that of all, and the largest of
/// all `number`s. `parts` is not that of the call before.
struct Tally {
  std::uint32_t before, total, largest;

  __device__ Tally(std::uint32_t count, std::uint32_t number, std::uint32_t (*parts)[2]) {
    const int lane = device::lane_index();
    const int warp = device::warp_index();
    const std::uint32_t sum = device::prefix_sum(count);
    largest = __reduce_max_sync(device::kAllLanes, number);
    if (lane == device::kWarpSize - 1) {
      parts[warp][0] = sum;
      parts[warp][1] = largest;
    }
    __syncthreads();
    const std::uint32_t own = lane < kWarps ? parts[lane][0] : 0;
    largest = __reduce_max_sync(device::kAllLanes, lane < kWarps ? parts[lane][1] : 0);
    total = __reduce_add_sync(device::kAllLanes, own);
    before = sum - count + __reduce_add_sync(device::kAllLanes, lane < warp ? own : 0);
  }
};

/// What one KV head of one item asks for. kFits: there is room for places, set and ages.
template <bool kFits>
struct Task {
  SlotMap map;
  std::int32_t count, first, length, durable, step;
  const std::int32_t* ids;
  std::int32_t *slot_of_rank, *miss_ids, *miss_slots;
  std::int32_t *list, *other_list;  // [max_budget] shared; `list` holds the ids at first
  std::int32_t* places;             // [max_budget] slot of a rank, -1 - j: the j-th missing
  TokenSet set;                     // of the ids
  Ages kept;                        // steps since a slot was used

  __device__ bool has_set() const { return kFits || set.bits != nullptr; }
  __device__ bool has_ages() const { return kFits || kept.data != nullptr; }
  __device__ bool is_cached(std::int32_t token) const {
    return static_cast<std::uint32_t>(token) < static_cast<std::uint32_t>(length);
  }
  /// Steps since a slot was used; kFree, or 0: it may not be taken.
  __device__ std::uint32_t age(std::int32_t token, std::int32_t last_used) const {
    if (!is_cached(token)) return kFree;
    return token >= durable ? 0U : static_cast<std::uint32_t>(step - last_used);
  }
  __device__ std::uint32_t age(std::int32_t slot) const {
    if (has_ages()) return kept[slot];
    return age(map.token_of_slot[slot], map.last_used[slot]);
  }
};

/// Slots that may be taken go by their key, the greatest first: free ones, then by age.
template <bool kFits>
struct Keys {
  const Task<kFits>& task;
  std::uint32_t greatest;

  __device__ std::uint32_t operator()(std::int32_t slot) const {
    return min(task.age(slot), greatest);
  }
  /// The leading digits of a key that none has are 0.
  __device__ int top_shift() const {
    int shift = 0;
    while (shift + kDigitBits < 32 && greatest >> (shift + kDigitBits) != 0) shift += kDigitBits;
    return shift;
  }
};

/// The `wanted`-th greatest key, and in `ties` how many slots of it belong to the greatest; 0:
/// there are fewer than `wanted` slots to take.
template <bool kFits>
__device__ std::uint32_t select_key(const Keys<kFits>& key, std::uint32_t wanted,
                                    std::uint32_t& ties, Shared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  std::uint32_t prefix = 0;
  for (int shift = key.top_shift(); shift >= 0; shift -= kDigitBits) {
    if (thread < kDigits) shared.histogram[thread] = 0;
    if (thread == 0) shared.digit = shared.wanted = 0;
    __syncthreads();
    for (std::int32_t s = thread; s < key.task.map.slots; s += kThreads) {
      const std::uint64_t own = key(s);
      if (own >> (shift + kDigitBits) == prefix) {
        atomicAdd(&shared.histogram[own >> shift & (kDigits - 1)], 1U);
      }
    }
    __syncthreads();
    const std::uint64_t mine = thread < kDigits ? shared.histogram[kDigits - 1 - thread] : 0;
    std::uint64_t total = 0;
    const std::uint64_t before = device::block_exclusive_sum(mine, shared.scan, total);
    if (before < wanted && wanted <= before + mine) {
      shared.digit = static_cast<std::uint32_t>(kDigits - 1 - thread);
      shared.wanted = wanted - static_cast<std::uint32_t>(before);
    }
    __syncthreads();
    prefix = prefix << kDigitBits | shared.digit;
    wanted = shared.wanted;
    __syncthreads();  // all have read them: the next digit's take their place
  }
  ties = wanted;
  return prefix;
}

/// list[0 .. returned): the slots to take, ascending.
template <bool kFits>
__device__ std::int32_t list_victims(const Task<kFits>& t, const Keys<kFits>& key,
                                     std::uint32_t lowest, std::uint32_t ties, Shared& shared) {
  constexpr int kEqualShift = 32;
  std::uint64_t sums = 0;
  for (std::int32_t base = 0; base < t.map.slots; base += kThreads * kSlots) {
    const std::int32_t slot = base + static_cast<std::int32_t>(threadIdx.x) * kSlots;
    unsigned above = 0;
    unsigned equal = 0;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const std::uint32_t own = slot + i < t.map.slots ? key(slot + i) : 0;
      above |= own > lowest ? 1U << i : 0U;
      equal |= own == lowest && own > 0 ? 1U << i : 0U;
    }
    std::uint64_t total = 0;
    const std::uint64_t before =
        sums +
        device::block_exclusive_sum(static_cast<std::uint64_t>(__popc(above)) |
                                        static_cast<std::uint64_t>(__popc(equal)) << kEqualShift,
                                    shared.scan, total);
    auto my_above = static_cast<std::uint32_t>(before);
    auto my_equal = static_cast<std::uint32_t>(before >> kEqualShift);
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const bool is_equal = (equal >> i & 1U) != 0;
      const bool is_above = (above >> i & 1U) != 0;
      if (is_above || (is_equal && my_equal < ties))
        t.list[my_above + min(my_equal, ties)] = slot + i;
      my_above += is_above ? 1 : 0;
      my_equal += is_equal ? 1 : 0;
    }
    sums += total;
  }
  __syncthreads();
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(sums) +
                                   min(static_cast<std::uint32_t>(sums >> kEqualShift), ties));
}

/// to = from, sorted by a digit of the keys, the greatest first; slots of one digit keep their
/// order. A warp takes a part of the list.
template <bool kFits>
__device__ void sort_by_digit(const Keys<kFits>& key, int shift, std::int32_t count,
                              const std::int32_t* from, std::int32_t* to, Shared& shared) {
  constexpr int kMine = kDigits * kWarps / kThreads;
  std::uint16_t* const counts = &shared.counts[0][0];
  for (int i = static_cast<int>(threadIdx.x); i < kDigits * kWarps; i += kThreads) counts[i] = 0;
  __syncthreads();
  const int warp = device::warp_index();
  const std::int32_t part = (count + kThreads - 1) / kThreads * device::kWarpSize;
  const std::int32_t end = min((warp + 1) * part, count);
  const auto for_part = [&](auto&& body) {
    for (std::int32_t i = warp * part + device::lane_index(); i - device::lane_index() < end;
         i += device::kWarpSize) {
      const std::int32_t slot = i < end ? from[i] : -1;
      const unsigned digit =
          slot >= 0 ? kDigits - 1 - (key(slot) >> shift & (kDigits - 1)) : kDigits;
      const unsigned same = __match_any_sync(device::kAllLanes, digit);
      const int rank = __popc(same & ((1U << device::lane_index()) - 1));
      if (slot >= 0) body(slot, shared.counts[digit][warp], rank);
      __syncwarp();
      if (slot >= 0 && rank == 0) {
        shared.counts[digit][warp] =
            static_cast<std::uint16_t>(shared.counts[digit][warp] + __popc(same));
      }
      __syncwarp();
    }
  };
  for_part([](std::int32_t, std::uint16_t, int) {});
  __syncthreads();
  std::uint16_t* const own = counts + threadIdx.x * kMine;
  std::uint64_t sum = 0;
#pragma unroll
  for (int i = 0; i < kMine; ++i) sum += own[i];
  std::uint64_t total = 0;
  std::uint64_t before = device::block_exclusive_sum(sum, shared.scan, total);
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const std::uint16_t mine = own[i];
    own[i] = static_cast<std::uint16_t>(before);
    before += mine;
  }
  __syncthreads();
  for_part([&](std::int32_t slot, std::uint16_t first, int rank) { to[first + rank] = slot; });
  __syncthreads();
}

}  // namespace spectx::cu::slots
