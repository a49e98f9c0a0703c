// SPDX-License-Identifier: Apache-2.0
// Every selected id gets a slot: the i-th missing one the i-th of (free slots ascending, then the
// oldest by last_used, ties to the lower slot).
// Reads ids and slots of an item and head a few times, from the cache: latency bound.
#include "device/block.cuh"
#include "kernels.hpp"
#include "slot_map.cuh"

namespace spectx::cu {
namespace {

constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;
constexpr index_t kMostBudget = 8192;  // whose victims fit in the shared memory of every device

struct Params {
  BatchView batch;
  const std::int32_t *ids, *counts;
  index_t max_budget;  // of the selection
  KVPoolView pool;
  StepLists lists;
  std::int32_t sort_capacity;  // a power of two: of the keys in shared memory
  std::uint32_t* arrived;
};

struct Shared {
  std::uint32_t scan[device::kMostWarps];
  std::uint32_t histogram[kDigits];
  std::uint32_t digit, wanted, longest;
};

/// What one KV head of one item asks for.
struct Task {
  SlotMap map;
  std::int32_t count, first, durable, step;
  const std::int32_t* ids;
  std::int32_t *slot_of_rank, *miss_ids, *miss_slots;

  /// Steps since a slot was used; 0: it may not be taken, or it is free.
  __device__ std::uint32_t age(std::int32_t slot) const {
    const std::int32_t token = map.token_of_slot[slot];
    if (token < 0 || token >= durable) return 0;
    return static_cast<std::uint32_t>(step - map.last_used[slot]);
  }
};

/// Marks the slots in use; slot_of_rank of the j-th missing id becomes -1 - j. Returns how many are
/// missing.
__device__ std::int32_t find_missing(const Task& t, Shared& shared, std::int32_t& hits) {
  std::int32_t missing = 0;
  hits = 0;
  for (std::int32_t base = 0; base < t.count; base += kSlotThreads) {
    const std::int32_t rank = base + static_cast<std::int32_t>(threadIdx.x);
    const bool is_there = rank < t.count;
    const std::int32_t id = is_there ? t.ids[rank] : 0;
    const std::int32_t slot = is_there ? t.map.slot_of_token[id] : 0;
    const bool is_missing = is_there && slot < 0;
    const bool is_hit = is_there && slot >= 0 && id < t.first;
    if (is_there && slot >= 0) t.map.last_used[slot] = t.step;
    constexpr int kHitShift = 16;  // both sums are at most kSlotThreads
    std::uint32_t total = 0;
    const std::uint32_t before = device::block_exclusive_sum(
        (is_missing ? 1U : 0U) | (is_hit ? 1U << kHitShift : 0U), shared.scan, total);
    const std::int32_t index = missing + static_cast<std::int32_t>(before & 0xffffU);
    if (is_there) t.slot_of_rank[rank] = is_missing ? -1 - index : slot;
    missing += static_cast<std::int32_t>(total & 0xffffU);
    hits += static_cast<std::int32_t>(total >> kHitShift);
  }
  return missing;
}

/// free[0 .. returned): the first free slots, at most `wanted`.
__device__ std::int32_t find_free(const SlotMap& map, std::int32_t wanted, std::int32_t* free,
                                  Shared& shared) {
  std::int32_t found = 0;
  for (std::int32_t base = 0; base < map.slots && found < wanted; base += kSlotThreads) {
    const std::int32_t slot = base + static_cast<std::int32_t>(threadIdx.x);
    const bool is_free = slot < map.slots && map.token_of_slot[slot] < 0;
    std::uint32_t total = 0;
    const std::int32_t index = found + static_cast<std::int32_t>(device::block_exclusive_sum(
                                           is_free ? 1U : 0U, shared.scan, total));
    if (is_free && index < wanted) free[index] = slot;
    found += static_cast<std::int32_t>(total);
  }
  return min(found, wanted);
}

/// The `wanted`-th greatest age, and in `ties` how many slots of that age belong to the oldest;
/// 0: there are fewer than `wanted` slots to take.
__device__ std::uint32_t select_age(const Task& t, std::uint32_t wanted, std::uint32_t& ties,
                                    Shared& shared) {
  const std::int32_t thread = static_cast<std::int32_t>(threadIdx.x);
  if (thread == 0) shared.longest = 0;
  __syncthreads();
  std::uint32_t longest = 0;
  for (std::int32_t s = thread; s < t.map.slots; s += kSlotThreads) {
    longest = max(longest, t.age(s));
  }
  atomicMax(&shared.longest, __reduce_max_sync(device::kAllLanes, longest));
  __syncthreads();
  // The leading digits of an age that none has are 0.
  int shift = 0;
  while (shift + kDigitBits < 32 && (shared.longest >> (shift + kDigitBits)) != 0) {
    shift += kDigitBits;
  }
  std::uint32_t prefix = 0;
  std::uint32_t mask = shift + kDigitBits < 32 ? ~0U << (shift + kDigitBits) : 0U;
  for (; shift >= 0; shift -= kDigitBits) {
    if (thread < kDigits) shared.histogram[thread] = 0;
    if (thread == 0) shared.digit = shared.wanted = 0;
    __syncthreads();
    for (std::int32_t s = thread; s < t.map.slots; s += kSlotThreads) {
      const std::uint32_t age = t.age(s);
      if ((age & mask) == prefix) atomicAdd(&shared.histogram[(age >> shift) & (kDigits - 1)], 1U);
    }
    __syncthreads();
    const std::uint32_t mine = thread < kDigits ? shared.histogram[kDigits - 1 - thread] : 0;
    std::uint32_t total = 0;
    const std::uint32_t before = device::block_exclusive_sum(mine, shared.scan, total);
    if (thread < kDigits && before < wanted && wanted <= before + mine) {
      shared.digit = static_cast<std::uint32_t>(kDigits - 1 - thread);
      shared.wanted = wanted - before;
    }
    __syncthreads();
    prefix |= shared.digit << shift;
    mask |= static_cast<std::uint32_t>(kDigits - 1) << shift;
    wanted = shared.wanted;
    __syncthreads();
  }
  ties = wanted;
  return prefix;
}

/// keys[0 .. returned): the oldest slots in the order in which they are taken, the slot in the low
/// half of a key; at most `wanted`.
__device__ std::int32_t find_oldest(const Task& t, std::int32_t wanted, std::uint64_t* keys,
                                    Shared& shared) {
  const std::int32_t thread = static_cast<std::int32_t>(threadIdx.x);
  std::uint32_t ties = 0;
  const std::uint32_t threshold = select_age(t, static_cast<std::uint32_t>(wanted), ties, shared);
  std::uint32_t older = 0;
  std::uint32_t equal = 0;
  constexpr int kEqualShift = 16;
  for (std::int32_t base = 0; base < t.map.slots; base += kSlotThreads) {
    const std::int32_t slot = base + thread;
    const std::uint32_t age = slot < t.map.slots ? t.age(slot) : 0;
    const bool is_older = age > threshold;
    const bool is_equal = age == threshold && age > 0;
    std::uint32_t total = 0;
    const std::uint32_t before = device::block_exclusive_sum(
        (is_older ? 1U : 0U) | (is_equal ? 1U << kEqualShift : 0U), shared.scan, total);
    const std::uint32_t my_older = older + (before & 0xffffU);
    const std::uint32_t my_equal = equal + (before >> kEqualShift);
    const std::uint64_t key =
        (static_cast<std::uint64_t>(~age) << 32) | static_cast<std::uint32_t>(slot);
    if (is_older) keys[my_older + min(my_equal, ties)] = key;
    if (is_equal && my_equal < ties) keys[my_older + my_equal] = key;
    older += total & 0xffffU;
    equal += total >> kEqualShift;
  }
  const std::int32_t found = static_cast<std::int32_t>(older + min(equal, ties));
  std::int32_t size = 1;
  while (size < found) size *= 2;
  for (std::int32_t i = found + thread; i < size; i += kSlotThreads) keys[i] = ~std::uint64_t{0};
  __syncthreads();
  for (std::int32_t run = 2; run <= size; run *= 2) {  // a bitonic sort
    for (std::int32_t step = run / 2; step > 0; step /= 2) {
      for (std::int32_t i = thread; i < size / 2; i += kSlotThreads) {
        const std::int32_t low = 2 * i - (i & (step - 1));
        const std::uint64_t a = keys[low];
        const std::uint64_t b = keys[low + step];
        if ((a > b) == ((low & run) == 0)) {
          keys[low] = b;
          keys[low + step] = a;
        }
      }
      __syncthreads();
    }
  }
  return found;
}

/// One KV head of one item: a slot for every selected id. Returns the misses.
__device__ std::int32_t update_head(const Task& t, std::uint64_t* keys, std::int32_t* free,
                                    Shared& shared, std::int32_t& hits) {
  const std::int32_t missing = find_missing(t, shared, hits);
  __syncthreads();
  const std::int32_t num_free = find_free(t.map, missing, free, shared);
  std::int32_t found = num_free;
  if (found < missing) found += find_oldest(t, missing - num_free, keys, shared);
  __syncthreads();
  std::int32_t misses = 0;
  for (std::int32_t base = 0; base < t.count; base += kSlotThreads) {
    const std::int32_t rank = base + static_cast<std::int32_t>(threadIdx.x);
    const std::int32_t index = rank < t.count ? -1 - t.slot_of_rank[rank] : -1;
    const bool is_missing = index >= 0;
    const bool is_fetched = is_missing && index < found && t.ids[rank] < t.first;
    if (is_missing && index >= found) t.slot_of_rank[rank] = -1;
    if (is_missing && index < found) {
      const std::int32_t slot =
          index < num_free ? free[index] : static_cast<std::int32_t>(keys[index - num_free]);
      const std::int32_t before = t.map.token_of_slot[slot];
      if (before >= 0) t.map.slot_of_token[before] = -1;
      t.map.token_of_slot[slot] = t.ids[rank];
      t.map.slot_of_token[t.ids[rank]] = slot;
      t.map.last_used[slot] = t.step;
      t.slot_of_rank[rank] = slot;
      if (is_fetched) {  // ids ascend: this step's own rows are the last that are missing
        t.miss_ids[index] = t.ids[rank];
        t.miss_slots[index] = slot;
      }
    }
    misses += __syncthreads_count(is_fetched);
  }
  return misses;
}

// One block an item and KV head; the last to end ticks the clock.
__global__ void __launch_bounds__(kSlotThreads)
    update_slots_kernel(const __grid_constant__ Params p) {
  extern __shared__ std::uint64_t keys[];  // [sort_capacity], then free slots [max_budget]
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
      const SlotMap map(pool, request, head);
      map.forget_from(p.batch.length[item]);
      __syncthreads();
      if (p.counts[blockIdx.x] != kAllTokens) {
        // Where every group is resident, no row is in a slot alone.
        const bool is_offloaded = pool.resident_groups[request] < pool.groups;
        const index_t to = blockIdx.x * p.lists.max_budget;
        const Task task{
            map,
            p.counts[blockIdx.x],
            static_cast<std::int32_t>(p.batch.first(item)),
            is_offloaded ? pool.durable[request] : static_cast<std::int32_t>(pool.max_length),
            step,
            p.ids + blockIdx.x * p.max_budget,
            p.lists.slot_of_rank + to,
            p.lists.miss_ids + to,
            p.lists.miss_slots + to};
        std::int32_t* const free = reinterpret_cast<std::int32_t*>(keys + p.sort_capacity);
        misses = update_head(task, keys, free, shared, hits);
      }
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
  std::int32_t capacity = 1;
  while (capacity < a.selection.max_budget) capacity *= 2;
  const Params p{view_of(*a.batch),
                 a.selection.ids.data,
                 a.selection.counts.data,
                 a.selection.max_budget,
                 a.pool,
                 a.lists,
                 capacity,
                 on.arrived};
  const auto shared_bytes = static_cast<std::size_t>(capacity) * sizeof(std::uint64_t) +
                            static_cast<std::size_t>(a.selection.max_budget) * sizeof(std::int32_t);
  check(cudaFuncSetAttribute(update_slots_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes)));
  const index_t blocks = std::max<index_t>(items * a.pool.kv_heads, 1);  // the clock always ticks
  update_slots_kernel<<<grid_of(blocks), kSlotThreads, shared_bytes, on.stream>>>(p);
  check(cudaGetLastError());
}

}  // namespace spectx::cu
