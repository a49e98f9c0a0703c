// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"
#include "spectx/dispatch.hpp"

namespace spectx::cpu {

inline void store_ring(const StoreRingArgs& a, Context& context) {
  const Batch& batch = *a.batch;
  const index_t ring_rows = a.ring.shape[1];
  const index_t width = a.ring.shape[2];
  dispatch_dtype(a.ring.dtype, [&]<class T>() {
    context.for_ranges(num_items(batch), width * 6, [&](index_t begin, index_t end, int) {
      for (index_t i = begin; i < end; ++i) {
        const index_t last = batch.row_begin.data[i + 1];
        const index_t first = std::max(index_t{batch.row_begin.data[i]}, last - ring_rows);
        for (index_t r = first; r < last; ++r) {
          from_floats(row<const float>(a.rows, r), width,
                      row<T>(a.ring, batch.request.data[i], batch.position.data[r] % ring_rows));
        }
      }
    });
  });
}

inline void load_ring(const LoadRingArgs& a, Context& context) {
  const Batch& batch = *a.batch;
  const index_t ring_rows = a.ring.shape[1];
  const index_t width = a.ring.shape[2];
  dispatch_dtype(a.ring.dtype, [&]<class T>() {
    context.for_ranges(num_items(batch), width * 6, [&](index_t begin, index_t end, int) {
      for (index_t i = begin; i < end; ++i) {
        const index_t position = batch.position.data[batch.row_begin.data[i]];
        for (index_t lead = batch.lead_begin.data[i]; lead < batch.lead_begin.data[i + 1]; ++lead) {
          float* const to = row(a.out, lead);
          if (position == 0) {
            std::fill_n(to, width, 0.0F);
          } else {
            to_floats(row<const T>(a.ring, batch.request.data[i], (position - 1) % ring_rows),
                      width, to);
          }
        }
      }
    });
  });
}

}  // namespace spectx::cpu
