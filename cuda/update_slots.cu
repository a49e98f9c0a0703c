// SPDX-License-Identifier: Apache-2.0
// Every selected id gets a slot: the i-th missing one the i-th of (free slots ascending, then the
// oldest by last_used, ties to the lower slot).
// Reads ids, their map entries and the slots of an item and head once: latency bound.
#include "kernels.hpp"
#include "slot_victims.cuh"

namespace spectx::cu {
namespace {

using namespace slots;

constexpr index_t kMostBudget = 8192;
// Shared memory of a block; every device has it. Budgets of 8192 leave room for the keys of 4096
// slots: those of more are found in global memory.
constexpr index_t kMostSharedBytes = index_t{96} << 10;
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

/// Marks the slots in use; slot_of_rank of the j-th missing id becomes -1 - j.
__device__ Found find_missing(const Task& t, Shared& shared) {
  constexpr int kHitShift = 20;  // sums are at most kMostBudget
  constexpr int kOwnShift = 40;
  constexpr std::uint64_t kSum = (std::uint64_t{1} << kHitShift) - 1;
  std::uint64_t sums = 0;
  for (std::int32_t base = 0; base < t.count; base += kThreads * kRanks) {
    const std::int32_t rank = base + static_cast<std::int32_t>(threadIdx.x) * kRanks;
    std::int32_t id[kRanks], slot[kRanks];
#pragma unroll
    for (int i = 0; i < kRanks; ++i) id[i] = rank + i < t.count ? t.ids[rank + i] : -1;
#pragma unroll
    for (int i = 0; i < kRanks; ++i) slot[i] = id[i] >= 0 ? t.map.slot_of_token[id[i]] : 0;
    std::uint64_t mine = 0;
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      if (id[i] < 0) continue;
      const bool is_own = id[i] >= t.first;
      if (slot[i] < 0) {
        mine += 1 + (is_own ? std::uint64_t{1} << kOwnShift : 0);
      } else {
        mine += is_own ? 0 : std::uint64_t{1} << kHitShift;
        t.map.last_used[slot[i]] = t.step;
        atomicOr(&t.used[slot[i] / 32], 1U << slot[i] % 32);
      }
    }
    std::uint64_t total = 0;
    auto index = static_cast<std::int32_t>(
        (sums + device::block_exclusive_sum(mine, shared.scan, total)) & kSum);
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      if (id[i] >= 0) t.slot_of_rank[rank + i] = slot[i] < 0 ? -1 - index++ : slot[i];
    }
    sums += total;
  }
  return {static_cast<std::int32_t>(sums >> kHitShift & kSum),
          static_cast<std::int32_t>(sums & kSum), static_cast<std::int32_t>(sums >> kOwnShift)};
}

/// Forgets the slots of tokens past the item's length; keeps ages. Returns the longest.
__device__ std::uint32_t find_ages(const Task& t, Shared& shared) {
  std::uint32_t longest = 0;
  for (std::int32_t base = 0; base < t.map.slots; base += kThreads * kSlots) {
    std::int32_t token[kSlots], last_used[kSlots];
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const std::int32_t slot = base + i * kThreads + static_cast<std::int32_t>(threadIdx.x);
      token[i] = slot < t.map.slots ? t.map.token_of_slot[slot] : -1;
      last_used[i] = slot < t.map.slots ? t.map.last_used[slot] : 0;
    }
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const std::int32_t slot = base + i * kThreads + static_cast<std::int32_t>(threadIdx.x);
      if (slot >= t.map.slots) continue;
      const std::uint32_t age = t.age(slot, token[i], last_used[i]);
      if (age != kFree) longest = max(longest, age);
      if (t.kept != nullptr) t.kept[slot] = age;
      if (token[i] < t.length) continue;
      t.map.slot_of_token[token[i]] = -1;
      t.map.token_of_slot[slot] = -1;
    }
  }
  longest = __reduce_max_sync(device::kAllLanes, longest);
  if (device::lane_index() == 0) atomicMax(&shared.longest, longest);
  __syncthreads();
  return shared.longest;
}

/// Gives the j-th missing id the j-th of `found` slots.
__device__ void assign(const Task& t, const std::int32_t* slots, std::int32_t found) {
  for (std::int32_t rank = static_cast<std::int32_t>(threadIdx.x); rank < t.count;
       rank += kThreads) {
    const std::int32_t index = -1 - t.slot_of_rank[rank];
    if (index < 0) continue;
    if (index >= found) {
      t.slot_of_rank[rank] = -1;
      continue;
    }
    const std::int32_t slot = slots[index];
    const std::int32_t id = t.ids[rank];
    const std::int32_t before = t.map.token_of_slot[slot];
    if (before >= 0) t.map.slot_of_token[before] = -1;
    t.map.token_of_slot[slot] = id;
    t.map.slot_of_token[id] = slot;
    t.map.last_used[slot] = t.step;
    t.slot_of_rank[rank] = slot;
    if (id >= t.first) continue;  // ids ascend: this step's own rows are the last that are missing
    t.miss_ids[index] = id;
    t.miss_slots[index] = slot;
  }
}

/// One KV head of one item: a slot for every selected id. Returns the misses.
__device__ std::int32_t update_head(Task& t, Shared& shared, std::int32_t& hits) {
  for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < (t.map.slots + 31) / 32;
       i += kThreads) {
    t.used[i] = 0;
  }
  if (threadIdx.x == 0) shared.longest = 0;
  __syncthreads();
  const Found all = find_missing(t, shared);
  __syncthreads();
  hits = all.hits;
  const Keys key{t, find_ages(t, shared) + 1};
  if (all.missing == 0) return 0;
  std::uint32_t ties = 0;
  const std::uint32_t lowest =
      select_key(key, static_cast<std::uint32_t>(all.missing), ties, shared);
  const std::int32_t found = list_victims(t, key, lowest, ties, shared);
  // One key alone is in order already.
  for (int shift = 0; lowest != key.greatest && shift <= key.top_shift(); shift += kDigitBits) {
    sort_by_digit(key, shift, found, t.list, t.other_list, shared);
    std::int32_t* const sorted = t.other_list;
    t.other_list = t.list;
    t.list = sorted;
  }
  assign(t, t.list, found);
  return min(all.missing - all.own, found);
}

// One block an item and KV head; the last to end ticks the clock.
__global__ void __launch_bounds__(kThreads, 2)
    update_slots_kernel(const __grid_constant__ Params p) {
  extern __shared__ std::int32_t memory[];  // two lists [max_budget], used bits, kept ages
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
      auto* const used = reinterpret_cast<std::uint32_t*>(memory + 2 * p.max_budget);
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
                p.kept_slots > 0 ? used + (pool.slots + 31) / 32 : nullptr,
                used,
                memory,
                memory + p.max_budget};
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
  const index_t words = 2 * a.selection.max_budget + div_up(a.pool.slots, 32);
  const bool keeps =
      (words + a.pool.slots) * index_t{4} <= kMostSharedBytes - index_t{sizeof(Shared)};
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
