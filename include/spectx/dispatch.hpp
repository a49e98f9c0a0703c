// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "spectx/error.hpp"
#include "spectx/half.hpp"
#include "spectx/types.hpp"

namespace spectx {

/// Calls `body.template operator()<T>()` with the storage type of `dtype`; throws Unsupported for a
/// type that holds no rows.
template <class Body>
decltype(auto) dispatch_dtype(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::f32:
      return body.template operator()<float>();
    case DType::f16:
      return body.template operator()<half_t>();
    case DType::bf16:
      return body.template operator()<bf16_t>();
    case DType::f8_e4m3:
    case DType::i8:
    case DType::i32:
      break;
  }
  throw Unsupported(std::string("dtype ") + dtype_name(dtype) + " is not supported here");
}

/// Calls `body.template operator()<V>()` for the V of the list that equals `value`; throws
/// Unsupported for a value outside the list.
template <index_t... kValues, class Body>
void dispatch_value(index_t value, Body&& body) {
  const bool found = ((value == kValues && (body.template operator()<kValues>(), true)) || ...);
  if (!found) throw Unsupported("size " + std::to_string(value) + " is not supported here");
}

}  // namespace spectx
