// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "slot_victims.cuh"

// Which of a KV head's selected ids are in a slot; one block finds them.
namespace spectx::cu::slots {

/// Of a task's ids those in no slot, and those of them that were cached before the step.
struct Missing {
  std::int32_t all, cached;
};

/// The first ids of a thread and those before them.
struct IdTile {
  std::int32_t id[kRanks], before[kRanks];

  static __device__ std::int32_t rank(int i) {
    return i * kThreads + static_cast<std::int32_t>(threadIdx.x);
  }
  __device__ IdTile(const std::int32_t* ids, std::int32_t most) {
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      id[i] = rank(i) < most ? ids[rank(i)] : 0;
      before[i] = rank(i) < most && rank(i) > 0 ? ids[rank(i) - 1] : -1;
    }
  }
};

/// Some slots of a thread.
struct SlotTile {
  std::int32_t token[kSlots], last_used[kSlots];

  static __device__ std::int32_t slot(std::int32_t base, int i) {
    return base + i * kThreads + static_cast<std::int32_t>(threadIdx.x);
  }
  __device__ SlotTile(const SlotMap& map, std::int32_t base) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const bool is_there = slot(base, i) < map.slots;
      token[i] = is_there ? map.token_of_slot[slot(base, i)] : -1;
      last_used[i] = is_there ? map.last_used[slot(base, i)] : 0;
    }
  }
};

/// The ids into shared memory.
template <bool kFits>
__device__ void enter_ids(const Task<kFits>& t, const IdTile& first, Shared& shared) {
  const auto enter = [&](std::int32_t rank, std::int32_t id, std::int32_t before) {
    t.list[rank] = id;
    t.places[rank] = -1;
    if (t.has_set()) t.set.add(id, rank, before);
    if (before < t.first && id >= t.first) shared.cached = rank;
  };
#pragma unroll
  for (int i = 0; i < kRanks; ++i) {
    if (IdTile::rank(i) < t.count) enter(IdTile::rank(i), first.id[i], first.before[i]);
  }
  for (std::int32_t rank = IdTile::rank(kRanks); rank < t.count; rank += kThreads) {
    enter(rank, t.ids[rank], t.ids[rank - 1]);
  }
  __syncthreads();
}

/// The ranks of a thread's tokens, or -1.
template <bool kFits>
__device__ void find_ranks(const Task<kFits>& t, const SlotTile& tile,
                           std::int32_t (&rank)[kSlots]) {
  if (t.has_set()) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      rank[i] = t.set.rank(t.is_cached(tile.token[i]) ? tile.token[i] : -1);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    const std::int32_t token = tile.token[i];
    std::int32_t low = 0;
    std::int32_t high = t.is_cached(token) ? t.count : 0;
    while (low < high) {
      const std::int32_t middle = (low + high) / 2;
      if (t.list[middle] < token) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    rank[i] = low < t.count && t.list[low] == token ? low : -1;
  }
}

/// Forgets the slots of tokens past the item's length, finds those of the ids and marks them used,
/// keeps the ages of the others.
template <bool kFits>
__device__ void find_slots(const Task<kFits>& t, SlotTile tile, Shared& shared) {
  std::uint32_t longest = 0;
  bool has_free = false;
  for (std::int32_t base = 0; base < t.map.slots; base += kThreads * kSlots) {
    if (base > 0) tile = SlotTile(t.map, base);
    std::int32_t rank[kSlots];
    find_ranks(t, tile, rank);
    unsigned past = 0;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const std::int32_t slot = SlotTile::slot(base, i);
      const std::int32_t token = tile.token[i];
      const bool is_taken = slot >= t.map.slots || rank[i] >= 0;
      const std::uint32_t age = is_taken ? 0 : t.age(token, tile.last_used[i]);
      if (rank[i] >= 0) {
        t.places[rank[i]] = slot;
        t.map.last_used[slot] = t.step;
      }
      past |= token >= t.length ? 1U << i : 0;
      has_free = has_free || age == kFree;
      longest = max(longest, age == kFree ? 0 : age);
      if (t.has_ages()) t.kept[slot] = age;
    }
    for (int i = 0; past != 0 && i < kSlots; ++i) {
      if ((past >> i & 1U) == 0) continue;
      const std::int32_t slot = SlotTile::slot(base, i);
      t.map.slot_of_token[t.map.token_of_slot[slot]] = -1;
      t.map.token_of_slot[slot] = -1;
    }
  }
  longest = __reduce_max_sync(device::kAllLanes, longest);
  has_free = __any_sync(device::kAllLanes, has_free);
  if (device::lane_index() == 0) {
    atomicMax(&shared.longest, longest);
    if (has_free) shared.has_free = true;
  }
  __syncthreads();
}

/// Counts and numbers the missing ids.
template <bool kFits>
__device__ Missing number_missing(const Task<kFits>& t, Shared& shared) {
  constexpr int kCachedShift = 16;  // sums are at most kMostBudget
  constexpr std::uint32_t kAll = (1U << kCachedShift) - 1;
  std::uint32_t sums = 0;
  unsigned calls = 0;
  for (std::int32_t base = 0; base < t.count; base += kThreads * kRanks) {
    const std::int32_t rank = base + static_cast<std::int32_t>(threadIdx.x) * kRanks;
    unsigned missing = 0;
    std::uint32_t mine = 0;
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      if (rank + i >= t.count || t.places[rank + i] >= 0) continue;
      missing |= 1U << i;
      mine += 1 + (rank + i < shared.cached ? 1U << kCachedShift : 0);
    }
    const Tally tally(mine, 0, shared.tally[calls++ % 2]);
    auto index = static_cast<std::int32_t>((sums + tally.before) & kAll);
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      if ((missing >> i & 1U) != 0) t.places[rank + i] = -1 - index++;
    }
    sums += tally.total;
  }
  __syncthreads();
  return {static_cast<std::int32_t>(sums & kAll), static_cast<std::int32_t>(sums >> kCachedShift)};
}

}  // namespace spectx::cu::slots
