// SPDX-License-Identifier: Apache-2.0
// Every selected id gets a slot: the i-th missing one the i-th of (free slots ascending, then the
// oldest by last_used, ties to the lower slot).
// Reads the ids and the slots of an item and head once, and looks for the slots' tokens among the
// ids: latency bound.
#include "kernels.hpp"
#include "slot_victims.cuh"

namespace spectx::cu {
namespace {

using namespace slots;

constexpr index_t kMostBudget = 8192;  // 110 KiB of shared memory, which sm_86 and sm_89 lack
constexpr index_t kMostSharedBytes = index_t{80} << 10;  // with the ages of all slots

constexpr int kStarts = kBuckets + 2;  // an even number

struct Params {
  BatchView batch;
  const std::int32_t *ids, *counts;
  index_t max_budget;  // of the selection
  KVPoolView pool;
  StepLists lists;
  std::int32_t kept_slots;  // slots whose keys are in shared memory: all or none
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

/// The ids into shared memory, and where those of a bucket of tokens begin.
__device__ void load_ids(const Task& t, int bucket_shift) {
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  for (std::int32_t rank = thread; rank < t.count; rank += kThreads) {
    t.list[rank] = t.ids[rank];
    t.places[rank] = -1;
  }
  __syncthreads();
  for (std::int32_t bucket = thread; bucket <= kBuckets; bucket += kThreads) {
    std::int32_t low = 0;
    std::int32_t high = t.count;
    while (low < high) {
      const std::int32_t middle = (low + high) / 2;
      if (t.list[middle] >> bucket_shift < bucket) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    t.starts[bucket] = static_cast<std::uint16_t>(low);
  }
}

/// The rank of a token, or -1.
__device__ inline std::int32_t rank_of(const Task& t, int bucket_shift, std::int32_t token) {
  std::int32_t low = t.starts[token >> bucket_shift];
  std::int32_t high = t.starts[(token >> bucket_shift) + 1];
  while (low < high) {
    const std::int32_t middle = (low + high) / 2;
    if (t.list[middle] == token) return middle;
    if (t.list[middle] < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return -1;
}

/// Forgets the slots of tokens past the item's length, finds those of the ids and marks them used,
/// keeps the ages of the others. Returns the longest.
__device__ std::uint32_t find_slots(const Task& t, Shared& shared) {
  SlotTile tile;
  tile.load(t.map, 0);
  int bucket_shift = 0;
  while ((t.length - 1) >> bucket_shift >= kBuckets) ++bucket_shift;
  load_ids(t, bucket_shift);
  if (threadIdx.x == 0) shared.longest = 0;
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
        const std::int32_t rank = rank_of(t, bucket_shift, token);
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

// One block an item and KV head; the last to end ticks the clock.
__global__ void __launch_bounds__(kThreads, 2)
    update_slots_kernel(const __grid_constant__ Params p) {
  extern __shared__ std::int32_t memory[];  // three lists [max_budget], starts, kept ages
  __shared__ Shared shared;
  const KVPoolView& pool = p.pool;
  const index_t item = blockIdx.x / pool.kv_heads;
  const index_t head = blockIdx.x % pool.kv_heads;
  const std::int32_t step = *pool.clock + 1;
  if (item < p.batch.items) {
    std::int32_t hits = 0;
    std::int32_t misses = 0;
    if (p.batch.selects[item] != 0) {
      const index_t request = p.batch.request[item];
      const std::int32_t count = p.counts[blockIdx.x];
      // Where every group is resident, no row is in a slot alone.
      const bool is_offloaded = pool.resident_groups[request] < pool.groups;
      const index_t to = blockIdx.x * p.lists.max_budget;
      auto* const starts = reinterpret_cast<std::uint16_t*>(memory + 3 * p.max_budget);
      auto* const kept = reinterpret_cast<std::uint32_t*>(starts + kStarts);
      Task task{SlotMap(pool, request, head),
                count == kAllTokens ? 0 : count,
                static_cast<std::int32_t>(p.batch.first(item)),
                p.batch.length[item],
                is_offloaded ? pool.durable[request] : static_cast<std::int32_t>(pool.max_length),
                step,
                p.ids + blockIdx.x * p.max_budget,
                p.lists.slot_of_rank + to,
                p.lists.miss_ids + to,
                p.lists.miss_slots + to,
                memory,
                memory + p.max_budget,
                memory + 2 * p.max_budget,
                starts,
                p.kept_slots > 0 ? kept : nullptr};
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
  const index_t words = 3 * a.selection.max_budget + kStarts / 2;
  const bool keeps = (words + a.pool.slots) * index_t{4} <= kMostSharedBytes;
  const Params p{view_of(*a.batch),
                 a.selection.ids.data,
                 a.selection.counts.data,
                 a.selection.max_budget,
                 a.pool,
                 a.lists,
                 keeps ? static_cast<std::int32_t>(a.pool.slots) : 0,
                 on.zeros};
  const auto shared_bytes = static_cast<std::size_t>(words + p.kept_slots) * sizeof(std::int32_t);
  check(cudaFuncSetAttribute(update_slots_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes)));
  const index_t blocks = std::max<index_t>(items * a.pool.kv_heads, 1);  // the clock always ticks
  update_slots_kernel<<<grid_of(blocks), kThreads, shared_bytes, on.stream>>>(p);
  check(cudaGetLastError());
}

}  // namespace spectx::cu
