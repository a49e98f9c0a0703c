// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/host_rows.hpp"
#include "spectx/cpu/rows.hpp"

namespace spectx::cpu {

namespace detail {

/// Slot of a token; negative: none.
inline index_t slot_of(const KVPoolView& pool, index_t request, index_t head,
                       index_t token) noexcept {
  return pool.slot_of_token[(request * pool.kv_heads + head) * pool.max_length + token];
}

/// Copies one token's rows between layers of a device place and its run in the host tier.
inline void copy_run(const KVPoolView& pool, index_t group, std::byte* const* device_pages,
                     index_t head, index_t n, std::byte* host_run, bool to_host) noexcept {
  const HostRows rows(pool);
  for (index_t l = 0; l < pool.layers_of(group); ++l) {
    std::byte* const device = pool.device_row(device_pages, l, head, n);
    if (to_host) {
      rows.store(device, host_run, l);
    } else {
      rows.load(host_run, l, device);
    }
  }
}

}  // namespace detail

inline void gather_rows(const GatherRowsArgs& a, Context& context) {
  const Batch& batch = *a.batch;
  const KVPoolView& pool = a.pool;
  context.for_each(num_items(batch) * pool.kv_heads, [&](index_t task, int) {
    const index_t item = task / pool.kv_heads;
    const index_t head = task % pool.kv_heads;
    const index_t request = batch.request.data[item];
    if (batch.selects.data[item] == 0 || a.group < pool.resident_groups[request]) return;
    std::byte* const* const host_pages = pool.host_pages_of(request, a.group);
    const HostRows rows(pool);
    for (index_t i = 0; i < a.lists.miss_counts[task]; ++i) {
      const index_t token = a.lists.miss_ids[task * a.lists.max_budget + i];
      const index_t slot = a.lists.miss_slots[task * a.lists.max_budget + i];
      for (index_t l = a.first_layer; l < a.first_layer + a.layers(); ++l) {
        rows.load(pool.host_run(host_pages, head, token), l,
                  pool.device_row(pool.pages_of(request, a.group), l, head, slot));
      }
    }
  });
}

inline void scatter_rows(const ScatterRowsArgs& a, Context& context) {
  const Batch& batch = *a.batch;
  const KVPoolView& pool = a.pool;
  context.for_each(num_items(batch), [&](index_t item, int) {
    const index_t request = batch.request.data[item];
    const index_t resident = pool.resident_groups[request];
    const index_t length = batch.length.data[item];
    const index_t durable = pool.durable[request];
    if (batch.selects.data[item] == 0 || resident >= pool.groups) return;
    const RequestId id{batch.request.data[item]};
    if (!is_write_due(pool.run, id, durable, length, a.write_batch)) return;
    for (index_t g = resident; g < pool.groups; ++g) {
      for (index_t token = durable; token < length; ++token) {
        for (index_t head = 0; head < pool.kv_heads; ++head) {
          const index_t slot = detail::slot_of(pool, request, head, token);
          assert(slot >= 0);
          detail::copy_run(pool, g, pool.pages_of(request, g), head, slot,
                           pool.host_run(pool.host_pages_of(request, g), head, token), true);
        }
      }
    }
    pool.durable[request] = static_cast<std::int32_t>(length);
  });
}

inline void move_rows(const MoveRowsArgs& a, Context& context) {
  using Kind = RowPlace::Kind;
  const KVPoolView& pool = a.pool;
  const HostRows rows(pool);
  const auto address = [&](const RowPlace& place, index_t layer, index_t head, index_t token) {
    if (place.kind == Kind::host) return pool.host_run(place.pages, head, token);
    const index_t n =
        place.kind == Kind::slots ? detail::slot_of(pool, a.request.value, head, token) : token;
    return pool.device_row(place.pages, place.kind == Kind::staging ? 0 : layer, head, n);
  };
  const bool uses_slots = a.from.kind == Kind::slots || a.to.kind == Kind::slots;
  const index_t first_layer = a.layer < 0 ? 0 : a.layer;
  const index_t last_layer = a.layer < 0 ? pool.layers_of(a.group) : a.layer + 1;
  const index_t token_bytes = 2 * pool.kv_heads * pool.row_bytes * (last_layer - first_layer);
  context.for_ranges(a.last - a.first, token_bytes, [&](index_t begin, index_t end, int) {
    for (index_t token = a.first + begin; token < a.first + end; ++token) {
      for (index_t head = 0; head < pool.kv_heads; ++head) {
        if (uses_slots && detail::slot_of(pool, a.request.value, head, token) < 0) continue;
        for (index_t l = first_layer; l < last_layer; ++l) {
          std::byte* const from = address(a.from, l, head, token);
          std::byte* const to = address(a.to, l, head, token);
          if (a.from.kind == Kind::host) {
            rows.load(from, l, to);
          } else if (a.to.kind == Kind::host) {
            rows.store(from, to, l);
          } else {
            copy_row(pool, from, pool.strides.v, to, pool.strides.v);
          }
        }
      }
    }
  });
}

}  // namespace spectx::cpu
