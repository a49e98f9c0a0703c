// SPDX-License-Identifier: Apache-2.0
// Every selected id gets a slot: the i-th missing one the i-th of (free slots ascending, then the
// oldest by last_used, ties to the lower slot).
// Reads ids and slots once, and looks for the slots' tokens among the ids: latency bound.
#include "launch_early.cuh"
#include "slot_ids.cuh"
#include "slot_oldest.cuh"

namespace spectx::cu {
namespace {

using namespace slots;

constexpr index_t kListBytes = index_t{88} << 10;  // of shared memory, at most
static_assert(kListBytes + sizeof(Shared) <= kMostSharedBytes);
static_assert(2 * kMostSlottedBudget * sizeof(std::int32_t) <= kListBytes);

struct Params {
  BatchView batch;
  const std::int32_t *ids, *counts;
  index_t max_budget;  // of the selection
  KVPoolView pool;
  StepLists lists;
  // What is in shared memory, as far as there is room: places of ranks, bits of tokens, ages of
  // slots.
  bool has_places;
  std::int32_t words, age_words;  // all or none
  std::uint32_t* arrived;
};

/// Gives the j-th missing id the j-th of `found` slots.
template <bool kFits>
__device__ void assign(const Task<kFits>& t, const std::int32_t* ids, const std::int32_t* slots,
                       std::int32_t found) {
  for (std::int32_t base = 0; base < t.count; base += kThreads * kRanks) {
    std::int32_t slot[kRanks], index[kRanks], before[kRanks];
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      const std::int32_t rank = base + IdTile::rank(i);
      const std::int32_t place = rank < t.count ? t.places[rank] : 0;
      index[i] = -1 - place;
      slot[i] = place >= 0 ? place : (index[i] < found ? slots[index[i]] : -1);
      before[i] = place < 0 && slot[i] >= 0 ? t.map.token_of_slot[slot[i]] : -1;
    }
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      const std::int32_t rank = base + IdTile::rank(i);
      if (rank >= t.count) continue;
      t.slot_of_rank[rank] = slot[i];
      if (index[i] < 0 || slot[i] < 0) continue;
      const std::int32_t id = ids[rank];
      if (before[i] >= 0) t.map.slot_of_token[before[i]] = -1;
      t.map.token_of_slot[slot[i]] = id;
      t.map.slot_of_token[id] = slot[i];
      t.map.last_used[slot[i]] = t.step;
      if (id >= t.first) continue;  // ids ascend: this step's own rows are the last missing ones
      t.miss_ids[index[i]] = id;
      t.miss_slots[index[i]] = slot[i];
    }
  }
}

/// t.list[0 .. returned): the slots of `wanted` missing ids, in order, by the digits of their ages.
template <bool kFits>
__device__ std::int32_t sort_victims(Task<kFits>& t, std::uint32_t wanted, Shared& shared) {
  const Keys<kFits> key{t, shared.longest + 1};
  std::uint32_t ties = 0;
  const std::uint32_t lowest = select_key(key, wanted, ties, shared);
  const std::int32_t found = list_victims(t, key, lowest, ties, shared);
  // One key alone is in order already.
  for (int shift = 0; lowest != key.greatest && shift <= key.top_shift(); shift += kDigitBits) {
    sort_by_digit(key, shift, found, t.list, t.other_list, shared);
    std::int32_t* const sorted = t.other_list;
    t.other_list = t.list;
    t.list = sorted;
  }
  return found;
}

/// One KV head of one item: a slot for every selected id. Returns the misses.
template <bool kFits>
__device__ std::int32_t update_head(Task<kFits>& t, const IdTile& ids, const SlotTile& slots,
                                    Shared& shared, std::int32_t& hits) {
  enter_ids(t, ids, shared);
  find_slots(t, slots, shared);
  const Missing missing = number_missing(t, shared);
  hits = shared.cached - missing.cached;
  if (missing.all == 0) {
    assign(t, t.list, nullptr, 0);
    return 0;
  }
  const auto wanted = static_cast<std::uint32_t>(missing.all);
  if (t.has_ages()) {
    const std::uint32_t taken =
        take_oldest(t, shared.has_free ? kFree : shared.longest, wanted, t.other_list, shared);
    if (taken != kManyAges) {
      assign(t, t.list, t.other_list, static_cast<std::int32_t>(taken));
      return min(missing.cached, static_cast<std::int32_t>(taken));
    }
  }
  const std::int32_t found = sort_victims(t, wanted, shared);
  assign(t, t.ids, t.list, found);
  return min(missing.cached, found);
}

/// A block's lists in shared memory, and what else fits.
template <bool kFits>
struct SharedLists {
  std::int32_t *list, *other_list, *places;
  std::uint32_t *bits, *kept;
  std::uint16_t* first;

  __device__ SharedLists(const Params& p, std::int32_t* memory) {
    list = device::keep_address(memory);
    other_list = list + p.max_budget;
    places = other_list + p.max_budget;
    bits = reinterpret_cast<std::uint32_t*>(places + (kFits || p.has_places ? p.max_budget : 0));
    kept = bits + p.words + p.words / 2;
    first = reinterpret_cast<std::uint16_t*>(bits + p.words);
  }
};

// One block an item and KV head; the last to end ticks the clock.
template <bool kFits>
__global__ void __launch_bounds__(kThreads, 2)
    update_slots_kernel(const __grid_constant__ Params p) {
  extern __shared__ std::int32_t memory[];
  __shared__ Shared shared;
  device::wait_for_kernel_ahead();
  const KVPoolView& pool = p.pool;
  const auto heads = static_cast<unsigned>(pool.kv_heads);
  const index_t item = blockIdx.x / heads;
  const std::int32_t step = *pool.clock + 1;
  if (item < p.batch.items) {
    // What does not depend on one another is read at once.
    const IdTile ids(p.ids + blockIdx.x * p.max_budget, static_cast<std::int32_t>(p.max_budget));
    const index_t request = p.batch.request[item];
    const std::int32_t selected = p.counts[blockIdx.x];
    const std::int32_t count = selected == kAllTokens ? 0 : selected;
    const std::int32_t length = p.batch.length[item];
    const std::int32_t first_row = p.batch.row_begin[item];
    const bool selects = p.batch.selects[item] != 0;
    const SharedLists<kFits> lists(p, memory);
    const TokenSet set{kFits || p.words > 0 ? lists.bits : nullptr, lists.first};
    std::int32_t hits = 0;
    std::int32_t misses = 0;
    if (selects) {
      const SlotMap map(pool, request, blockIdx.x % heads);
      const SlotTile slots(map, 0);
      const std::int32_t resident = pool.resident_groups[request];
      const std::int32_t durable = pool.durable[request];
      const index_t to = blockIdx.x * p.lists.max_budget;
      std::int32_t* const slot_of_rank = p.lists.slot_of_rank + to;
      Task<kFits> task{
          map,
          count,
          p.batch.position[first_row],
          length,
          // Where every group is resident, no row is in a slot alone.
          resident < pool.groups ? durable : static_cast<std::int32_t>(pool.max_length),
          step,
          p.ids + blockIdx.x * p.max_budget,
          slot_of_rank,
          p.lists.miss_ids + to,
          p.lists.miss_slots + to,
          lists.list,
          lists.other_list,
          kFits || p.has_places ? lists.places : slot_of_rank,
          set,
          {kFits || p.age_words > 0 ? lists.kept : nullptr}};
      set.clear(p.words);
      if (threadIdx.x == 0) {
        shared.longest = 0;
        shared.has_free = false;
        shared.cached = count;
      }
      __syncthreads();
      misses = update_head(task, ids, slots, shared, hits);
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
  const index_t items = static_cast<index_t>(a.batch->items.size());
  index_t words = 2 * a.selection.max_budget;
  // `most` more if there is room, else 0.
  const auto take = [&](index_t most) {
    const bool fits = (words + most) * index_t{4} <= kListBytes;
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
                 take(Ages::words(a.pool.slots)),
                 on.zeros};
  const bool fits = has_places && p.words > 0 && p.age_words > 0;
  const auto kernel = fits ? update_slots_kernel<true> : update_slots_kernel<false>;
  const auto bytes = static_cast<int>(words * index_t{4});
  // The most, not `bytes`: it is the process's, and another backend may launch with more just now.
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(kListBytes)));
  const index_t blocks = std::max<index_t>(items * a.pool.kv_heads, 1);  // the clock always ticks
  launch_early(kernel, grid_of(blocks), kThreads, bytes, p, on);
}

}  // namespace spectx::cu
