// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"
#include "spectx/dispatch.hpp"

namespace spectx::cpu {

/// Where the K of the token at `position` of an item belongs.
inline std::byte* append_place(const AppendRowsArgs& a, index_t item, index_t head,
                               index_t position) {
  const KVView& to = a.to;
  const index_t request = a.batch->request.data[item];
  const bool reads_all = to.counts == nullptr || to.counts[item * to.kv_heads + head] == kAllTokens;
  if (to.is_resident(request)) return to.row(request, head, position);
  if (reads_all) return to.row(request, head, position, /*is_staged=*/true);
  const index_t slot = a.slot_of_token[(request * to.kv_heads + head) * a.max_length + position];
  assert(slot >= 0);
  return to.row(request, head, slot);
}

inline void append_rows(const AppendRowsArgs& a, Context& context) {
  const KVView& to = a.to;
  dispatch_dtype(to.dtype, [&]<class T>() {
    const index_t unit_bytes = to.kv_heads * (to.k_dim + to.v_dim) * 6;
    context.for_ranges(a.k.shape[0], unit_bytes, [&](index_t begin, index_t end, int) {
      for (index_t i = begin; i < end; ++i) {
        const index_t of = batch_row(a.row_index, i);
        if (of < 0) continue;
        const index_t item = a.batch->item.data[of];
        for (index_t h = 0; h < to.kv_heads; ++h) {
          std::byte* const place = append_place(a, item, h, a.batch->position.data[of]);
          from_floats(row<const float>(a.k, i, h), to.k_dim, reinterpret_cast<T*>(place));
          if (!a.v) continue;
          from_floats(row<const float>(a.v, i, h), to.v_dim,
                      reinterpret_cast<T*>(place + to.v_offset));
        }
      }
    });
  });
}

}  // namespace spectx::cpu
