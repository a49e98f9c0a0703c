// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "views.cuh"

namespace spectx::cu {

inline constexpr int kSlotThreads = 1024;  // one block a KV head: its steps wait for one another

/// The slot map of one KV head of one request.
struct SlotMap {
  std::int32_t *slot_of_token, *token_of_slot, *last_used;
  std::int32_t slots;

  __device__ SlotMap(const KVPoolView& pool, index_t request, index_t head)
      : slot_of_token(pool.slot_of_token + (request * pool.kv_heads + head) * pool.max_length),
        token_of_slot(pool.token_of_slot + (request * pool.kv_heads + head) * pool.slots),
        last_used(pool.last_used + (request * pool.kv_heads + head) * pool.slots),
        slots(static_cast<std::int32_t>(pool.slots)) {}

  /// Forgets the slots of tokens >= first.
  __device__ void forget_from(std::int32_t first) const {
    for (std::int32_t s = static_cast<std::int32_t>(threadIdx.x); s < slots; s += kSlotThreads) {
      const std::int32_t token = token_of_slot[s];
      if (token < 0 || token < first) continue;
      slot_of_token[token] = -1;
      token_of_slot[s] = -1;
    }
  }
};

}  // namespace spectx::cu
