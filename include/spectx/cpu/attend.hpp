// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/cpu/attend_few_rows.hpp"
#include "spectx/cpu/attend_many_rows.hpp"
#include "spectx/dispatch.hpp"

namespace spectx::cpu {

/// The path of an item is chosen by its number of rows alone, so that a result does not depend on
/// how its rows are named or where they are.
inline void attend(const AttendArgs& a, Context& context) {
  constexpr index_t kFewRows = 8;
  const TensorView& q = a.q;
  expects(q.dtype == DType::f32 && q.rank == 3 && q.shape[0] >= a.batch->num_rows &&
              q.shape[1] % a.kv.kv_heads == 0 && q.shape[2] == a.kv.k_dim,
          "attend: on the CPU q must be f32 [rows, query_heads, k_dim]");
  expects(a.out.dtype == DType::f32 && a.out.rank == 3 && a.out.shape[0] >= a.batch->num_rows &&
              a.out.shape[1] == q.shape[1] && a.out.shape[2] == a.kv.v_dim,
          "attend: on the CPU out must be f32 [rows, query_heads, v_dim]");
  dispatch_dtype(a.kv.dtype, [&]<class T>() {
    AttendManyRows<T>(a, context).run(kFewRows);
    AttendFewRows<T>(a, context).run(kFewRows);
  });
}

}  // namespace spectx::cpu
