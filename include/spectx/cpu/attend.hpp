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
  dispatch_dtype(a.kv.dtype, [&]<class T>() {
    AttendManyRows<T>(a, context).run(kFewRows);
    AttendFewRows<T>(a, context).run(kFewRows);
  });
}

}  // namespace spectx::cpu
