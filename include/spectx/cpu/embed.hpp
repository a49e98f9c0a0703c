// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"
#include "spectx/dispatch.hpp"

namespace spectx::cpu {

inline void embed(const EmbedArgs& a, Context& context) {
  const index_t rows = a.out.shape[0];
  const index_t hidden = a.out.shape[1];
  dispatch_dtype(a.table.dtype, [&]<class T>() {
    context.for_ranges(rows, hidden * 4, [&](index_t begin, index_t end, int) {
      for (index_t i = begin; i < end; ++i) {
        const index_t from = batch_row(a.row_index, i);
        if (from < 0) continue;
        const index_t token = a.tokens.data[from];
        if (token >= 0 && token < a.table.shape[0]) {
          to_floats(row<const T>(a.table, token), hidden, row(a.out, i));
        } else {
          std::fill_n(row(a.out, i), hidden, 0.0F);
        }
      }
    });
  });
}

}  // namespace spectx::cpu
