// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"

namespace spectx::cpu {

namespace detail {

/// The slot map of one KV head of one request.
struct SlotMap {
  SlotMap(const KVPoolView& pool, index_t request, index_t head) noexcept
      : slot_of_token(pool.slot_of_token + (request * pool.kv_heads + head) * pool.max_length),
        token_of_slot(pool.token_of_slot + (request * pool.kv_heads + head) * pool.slots),
        last_used(pool.last_used + (request * pool.kv_heads + head) * pool.slots),
        slots(pool.slots) {}

  std::int32_t* slot_of_token;
  std::int32_t* token_of_slot;
  std::int32_t* last_used;
  index_t slots;
};

/// Forgets the slots of tokens >= first.
inline void forget_from(const SlotMap& map, index_t first) noexcept {
  for (index_t s = 0; s < map.slots; ++s) {
    const std::int32_t token = map.token_of_slot[s];
    if (token < 0 || token < first) continue;
    map.slot_of_token[token] = -1;
    map.token_of_slot[s] = -1;
  }
}

/// Slots that may be taken, in the order in which they are: the free ones ascending, then the
/// oldest of those that neither this step uses nor the host tier lacks. Writes `wanted` of them;
/// returns how many there are, at most `wanted`.
inline index_t find_victims(const SlotMap& map, std::int32_t step, index_t durable, index_t wanted,
                            std::int64_t* victims) noexcept {
  index_t found = 0;
  for (index_t s = 0; s < map.slots && found < wanted; ++s) {
    if (map.token_of_slot[s] < 0) victims[found++] = s;
  }
  if (found == wanted) return found;
  std::int64_t* const oldest = victims + found;
  index_t candidates = 0;
  for (index_t s = 0; s < map.slots; ++s) {
    const std::int32_t token = map.token_of_slot[s];
    if (token < 0 || token >= durable || map.last_used[s] == step) continue;
    oldest[candidates++] = (std::int64_t{map.last_used[s]} << 32) | s;
  }
  const index_t taken = std::min(wanted - found, candidates);
  std::partial_sort(oldest, oldest + taken, oldest + candidates);
  for (index_t i = 0; i < taken; ++i) oldest[i] &= 0xffffffff;
  return found + taken;
}

struct SlotTask {
  index_t item, head, request;
  std::int32_t step;
};

/// One KV head of one item: a slot for every selected id.
inline void update_head(const UpdateSlotsArgs& a, const SlotTask& task, std::int64_t* victims) {
  const KVPoolView& pool = a.pool;
  const index_t at = task.item * pool.kv_heads + task.head;
  const index_t count = a.selection.counts.data[at];
  const std::int32_t* const ids = a.selection.ids.data + at * a.selection.max_budget;
  const index_t first = a.batch->position.data[a.batch->row_begin.data[task.item]];
  const SlotMap map(pool, task.request, task.head);
  std::int32_t* const slot_of_rank = a.lists.slot_of_rank + at * a.lists.max_budget;
  std::int32_t* const miss_ids = a.lists.miss_ids + at * a.lists.max_budget;
  std::int32_t* const miss_slots = a.lists.miss_slots + at * a.lists.max_budget;

  index_t missing = 0;
  index_t hits = 0;
  for (index_t rank = 0; rank < count; ++rank) {
    const std::int32_t slot = map.slot_of_token[ids[rank]];
    slot_of_rank[rank] = slot;
    if (slot < 0) {
      ++missing;
    } else {
      map.last_used[slot] = task.step;
      hits += ids[rank] < first ? 1 : 0;
    }
  }
  // Where every group is resident, no row is in a slot alone.
  const bool is_offloaded = pool.resident_groups[task.request] < pool.groups;
  const index_t durable = is_offloaded ? pool.durable[task.request] : pool.max_length;
  const index_t found = find_victims(map, task.step, durable, missing, victims);
  assert(found == missing);
  index_t taken = 0;
  index_t misses = 0;
  for (index_t rank = 0; rank < count && taken < found; ++rank) {
    if (slot_of_rank[rank] >= 0) continue;
    const std::int32_t slot = static_cast<std::int32_t>(victims[taken++]);
    if (map.token_of_slot[slot] >= 0) map.slot_of_token[map.token_of_slot[slot]] = -1;
    map.token_of_slot[slot] = ids[rank];
    map.slot_of_token[ids[rank]] = slot;
    map.last_used[slot] = task.step;
    slot_of_rank[rank] = slot;
    if (ids[rank] >= first) continue;  // written by this step
    miss_ids[misses] = ids[rank];
    miss_slots[misses++] = slot;
  }
  a.lists.miss_counts[at] = static_cast<std::int32_t>(misses);
  a.lists.hit_counts[at] = static_cast<std::int32_t>(hits);
}

}  // namespace detail

/// Throws OutOfMemory only before anything has changed.
inline void update_slots(const UpdateSlotsArgs& a, Context& context) {
  const Batch& batch = *a.batch;
  const KVPoolView& pool = a.pool;
  for (int t = 0; t < context.threads(); ++t) {
    context.of_thread(t).reserve(padded<std::int64_t>(pool.slots) * 8);
  }
  const std::int32_t step = ++*pool.clock;
  context.for_each(num_items(batch) * pool.kv_heads, [&](index_t task, int thread) {
    const index_t item = task / pool.kv_heads;
    const index_t request = batch.request.data[item];
    a.lists.miss_counts[task] = 0;
    a.lists.hit_counts[task] = 0;
    if (batch.selects.data[item] == 0) return;
    detail::forget_from(detail::SlotMap(pool, request, task % pool.kv_heads),
                        batch.length.data[item]);
    if (a.selection.counts.data[task] == kAllTokens) return;
    Carver carver(context.of_thread(thread).reserve(padded<std::int64_t>(pool.slots) * 8));
    detail::update_head(a, {item, task % pool.kv_heads, request, step},
                        carver.take<std::int64_t>(pool.slots));
  });
}

inline void forget_slots(const ForgetSlotsArgs& a) {
  for (index_t head = 0; head < a.pool.kv_heads; ++head) {
    detail::forget_from(detail::SlotMap(a.pool, a.request.value, head), a.first);
  }
}

}  // namespace spectx::cpu
