// SPDX-License-Identifier: Apache-2.0
// Every selected id gets a slot: the i-th missing one the i-th of (free slots ascending, then the
// oldest by last_used, ties to the lower slot).
// Reads ids and slots once, and looks for the slots' tokens among the ids: latency bound.
#include "kernels.hpp"
#include "slot_victims.cuh"

namespace spectx::cu {
namespace {

using namespace slots;

constexpr index_t kMostBudget = 8192;
constexpr index_t kMostSharedBytes = index_t{80} << 10;  // sm_86, sm_89 and sm_120 have 99 KiB

struct Params {
  BatchView batch;
  const std::int32_t *ids, *counts;
  index_t max_budget;  // of the selection
  KVPoolView pool;
  StepLists lists;
  // What is in shared memory, as far as there is room: places of ranks, bits of tokens, ages of
  // slots.
  bool has_places;
  std::int32_t words, kept_slots;  // all or none
  std::uint32_t* arrived;
};

/// Of a task's ids: in slots and cached before the step, in no slot, the latter of the step itself.
struct Found {
  std::int32_t hits, missing, own;
};

/// Some slots of a thread.
struct SlotTile {
  std::int32_t token[kSlots], last_used[kSlots];

  static __device__ std::int32_t slot(std::int32_t base, int i) {
    return base + i * kThreads + static_cast<std::int32_t>(threadIdx.x);
  }
  __device__ void load(const SlotMap& map, std::int32_t base) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const bool is_there = slot(base, i) < map.slots;
      token[i] = is_there ? map.token_of_slot[slot(base, i)] : -1;
      last_used[i] = is_there ? map.last_used[slot(base, i)] : 0;
    }
  }
};

/// The ids into shared memory.
__device__ void load_ids(const Task& t) {
  for (auto rank = static_cast<std::int32_t>(threadIdx.x); rank < t.count; rank += kThreads) {
    const std::int32_t id = t.ids[rank];
    t.list[rank] = id;
    t.places[rank] = -1;
    t.set.add(id, rank, rank == 0 ? -1 : t.ids[rank - 1]);
  }
}

/// The rank of a token, or -1.
__device__ inline std::int32_t rank_of(const Task& t, std::int32_t token) {
  if (t.set.bits != nullptr) return t.set.rank(token);
  std::int32_t low = 0;
  std::int32_t high = t.count;
  while (low < high) {
    const std::int32_t middle = (low + high) / 2;
    if (t.list[middle] < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < t.count && t.list[low] == token ? low : -1;
}

/// Forgets the slots of tokens past the item's length, finds those of the ids and marks them used,
/// keeps the ages of the others. Returns the longest.
__device__ std::uint32_t find_slots(const Task& t, Shared& shared) {
  SlotTile tile;
  tile.load(t.map, 0);
  load_ids(t);
  __syncthreads();
  std::uint32_t longest = 0;
  for (std::int32_t base = 0; base < t.map.slots; base += kThreads * kSlots) {
    if (base > 0) tile.load(t.map, base);
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const std::int32_t slot = SlotTile::slot(base, i);
      if (slot >= t.map.slots) continue;
      const std::int32_t token = tile.token[i];
      std::uint32_t age = t.age(token, tile.last_used[i]);
      if (token >= t.length) {
        t.map.slot_of_token[token] = -1;
        t.map.token_of_slot[slot] = -1;
      } else if (token >= 0) {
        const std::int32_t rank = rank_of(t, token);
        if (rank >= 0) {
          t.places[rank] = slot;
          t.map.last_used[slot] = t.step;
          age = 0;
        }
      }
      if (age != kFree) longest = max(longest, age);
      if (t.kept != nullptr) t.kept[slot] = age;
    }
  }
  longest = __reduce_max_sync(device::kAllLanes, longest);
  if (device::lane_index() == 0) atomicMax(&shared.longest, longest);
  __syncthreads();
  return shared.longest;
}

/// Counts; numbers the missing ids.
__device__ Found number_missing(const Task& t, Shared& shared) {
  constexpr int kHitShift = 20;  // sums are at most kMostBudget
  constexpr int kOwnShift = 40;
  constexpr std::uint64_t kSum = (std::uint64_t{1} << kHitShift) - 1;
  std::uint64_t sums = 0;
  for (std::int32_t base = 0; base < t.count; base += kThreads * kRanks) {
    const std::int32_t rank = base + static_cast<std::int32_t>(threadIdx.x) * kRanks;
    unsigned missing = 0;
    std::uint64_t mine = 0;
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      if (rank + i >= t.count) continue;
      const bool is_own = t.list[rank + i] >= t.first;
      if (t.places[rank + i] < 0) {
        missing |= 1U << i;
        mine += 1 + (is_own ? std::uint64_t{1} << kOwnShift : 0);
      } else {
        mine += is_own ? 0 : std::uint64_t{1} << kHitShift;
      }
    }
    std::uint64_t total = 0;
    auto index = static_cast<std::int32_t>(
        (sums + device::block_exclusive_sum(mine, shared.scan, total)) & kSum);
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      if ((missing >> i & 1U) != 0) t.places[rank + i] = -1 - index++;
    }
    sums += total;
  }
  __syncthreads();
  return {static_cast<std::int32_t>(sums >> kHitShift & kSum),
          static_cast<std::int32_t>(sums & kSum), static_cast<std::int32_t>(sums >> kOwnShift)};
}

/// Gives the j-th missing id the j-th of `found` slots.
__device__ void assign(const Task& t, const std::int32_t* slots, std::int32_t found) {
  for (std::int32_t rank = static_cast<std::int32_t>(threadIdx.x); rank < t.count;
       rank += kThreads) {
    const std::int32_t place = t.places[rank];
    const std::int32_t index = -1 - place;
    const std::int32_t slot = place >= 0 ? place : (index < found ? slots[index] : -1);
    t.slot_of_rank[rank] = slot;
    if (place >= 0 || slot < 0) continue;
    const std::int32_t id = t.ids[rank];
    const std::int32_t before = t.map.token_of_slot[slot];
    if (before >= 0) t.map.slot_of_token[before] = -1;
    t.map.token_of_slot[slot] = id;
    t.map.slot_of_token[id] = slot;
    t.map.last_used[slot] = t.step;
    if (id >= t.first) continue;  // ids ascend: this step's own rows are the last that are missing
    t.miss_ids[index] = id;
    t.miss_slots[index] = slot;
  }
}

/// One KV head of one item: a slot for every selected id. Returns the misses.
__device__ std::int32_t update_head(Task& t, Shared& shared, std::int32_t& hits) {
  const Keys key{t, find_slots(t, shared) + 1};
  const Found all = number_missing(t, shared);
  hits = all.hits;
  std::int32_t found = 0;
  if (all.missing > 0) {
    std::uint32_t ties = 0;
    const std::uint32_t lowest =
        select_key(key, static_cast<std::uint32_t>(all.missing), ties, shared);
    found = list_victims(t, key, lowest, ties, shared);
    // One key alone is in order already.
    for (int shift = 0; lowest != key.greatest && shift <= key.top_shift(); shift += kDigitBits) {
      sort_by_digit(key, shift, found, t.list, t.other_list, shared);
      std::int32_t* const sorted = t.other_list;
      t.other_list = t.list;
      t.list = sorted;
    }
  }
  assign(t, t.list, found);
  return min(all.missing - all.own, found);
}

/// The part of a block's shared memory after its lists.
struct SharedLists {
  std::int32_t *list, *other_list, *places;
  std::uint32_t *bits, *kept;
  std::uint16_t* first;

  __device__ SharedLists(const Params& p, std::int32_t* memory) {
    list = memory;
    other_list = list + p.max_budget;
    places = other_list + p.max_budget;
    bits = reinterpret_cast<std::uint32_t*>(places + (p.has_places ? p.max_budget : 0));
    kept = bits + p.words + p.words / 2;
    first = reinterpret_cast<std::uint16_t*>(bits + p.words);
  }
};

// One block an item and KV head; the last to end ticks the clock.
__global__ void __launch_bounds__(kThreads, 2)
    update_slots_kernel(const __grid_constant__ Params p) {
  extern __shared__ std::int32_t memory[];
  __shared__ Shared shared;
  const KVPoolView& pool = p.pool;
  const index_t item = blockIdx.x / pool.kv_heads;
  const index_t head = blockIdx.x % pool.kv_heads;
  const std::int32_t step = *pool.clock + 1;
  if (item < p.batch.items) {
    std::int32_t hits = 0;
    std::int32_t misses = 0;
    const SharedLists lists(p, memory);
    const TokenSet set{p.words > 0 ? lists.bits : nullptr, lists.first};
    // What does not depend on one another is read at once.
    const index_t request = p.batch.request[item];
    const std::int32_t count = p.counts[blockIdx.x];
    const std::int32_t length = p.batch.length[item];
    const std::int32_t first_row = p.batch.row_begin[item];
    const bool selects = p.batch.selects[item] != 0;
    if (threadIdx.x == 0) shared.longest = 0;
    set.clear(p.words * TokenSet::kTokens - 1);
    __syncthreads();
    if (selects) {
      // Where every group is resident, no row is in a slot alone.
      const std::int32_t resident = pool.resident_groups[request];
      const std::int32_t durable = pool.durable[request];
      const index_t to = blockIdx.x * p.lists.max_budget;
      std::int32_t* const slot_of_rank = p.lists.slot_of_rank + to;
      Task task{SlotMap(pool, request, head),
                count == kAllTokens ? 0 : count,
                p.batch.position[first_row],
                length,
                resident < pool.groups ? durable : static_cast<std::int32_t>(pool.max_length),
                step,
                p.ids + blockIdx.x * p.max_budget,
                slot_of_rank,
                p.lists.miss_ids + to,
                p.lists.miss_slots + to,
                lists.list,
                lists.other_list,
                p.has_places ? lists.places : slot_of_rank,
                set,
                p.kept_slots > 0 ? lists.kept : nullptr};
      misses = update_head(task, shared, hits);
    }
    if (threadIdx.x == 0) {
      p.lists.miss_counts[blockIdx.x] = misses;
      p.lists.hit_counts[blockIdx.x] = hits;
    }
  }
  if (threadIdx.x == 0 && atomicInc(p.arrived, gridDim.x - 1) == gridDim.x - 1) {
    *pool.clock = step;  // every block has read it; arrived is 0 again
  }
}

}  // namespace

void launch_update_slots(const UpdateSlotsArgs& a, const Launch& on) {
  if (a.selection.max_budget > kMostBudget) {
    throw Unsupported("update_slots: a budget of more than 8192");
  }
  const index_t items = static_cast<index_t>(a.batch->items.size());
  index_t words = 2 * a.selection.max_budget;
  // `most` more if there is room, else 0.
  const auto take = [&](index_t most) {
    const bool fits = (words + most) * index_t{4} <= kMostSharedBytes;
    words += fits ? most : 0;
    return static_cast<std::int32_t>(fits ? most : 0);
  };
  const bool has_places = take(a.selection.max_budget) > 0;
  const index_t set_words = div_up(div_up(a.pool.max_length, TokenSet::kTokens), 2) * 2;
  const std::int32_t bit_words =
      take(set_words + set_words / 2) > 0 ? static_cast<std::int32_t>(set_words) : 0;
  const Params p{view_of(*a.batch),
                 a.selection.ids.data,
                 a.selection.counts.data,
                 a.selection.max_budget,
                 a.pool,
                 a.lists,
                 has_places,
                 bit_words,
                 take(a.pool.slots),
                 on.zeros};
  const auto bytes = static_cast<int>(words * index_t{4});
  check(cudaFuncSetAttribute(update_slots_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             bytes));
  const index_t blocks = std::max<index_t>(items * a.pool.kv_heads, 1);  // the clock always ticks
  update_slots_kernel<<<grid_of(blocks), kThreads, static_cast<std::size_t>(bytes), on.stream>>>(p);
  check(cudaGetLastError());
}

}  // namespace spectx::cu
