// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"

namespace spectx::cpu {

namespace detail {

/// body(a, b, out), arrays, for every row; wide rows are cut, so that one row has work for all.
template <class Body>
void for_row_pieces(const TensorView& a, const TensorView& b, const TensorView& out,
                    Context& context, Body&& body) {
  using Eigen::ArrayXf;
  using Eigen::Map;
  constexpr index_t kPiece = 2048;  // elements
  const index_t dim = out.shape[1];
  const index_t pieces = (dim + kPiece - 1) / kPiece;
  const index_t piece_bytes = std::min(dim, kPiece) * 12;
  context.for_ranges(out.shape[0] * pieces, piece_bytes, [&](index_t begin, index_t end, int) {
    for (index_t task = begin; task < end; ++task) {
      const index_t i = task / pieces;
      const index_t from = task % pieces * kPiece;
      const index_t count = std::min(kPiece, dim - from);
      body(Map<const ArrayXf>(row<const float>(a, i) + from, count),
           Map<const ArrayXf>(row<const float>(b, i) + from, count),
           Map<ArrayXf>(row(out, i) + from, count));
    }
  });
}

}  // namespace detail

inline void swiglu(const SwigluArgs& a, Context& context) {
  detail::for_row_pieces(a.gate, a.up, a.out, context, [](auto gate, auto up, auto out) {
    out = gate / (1 + (-gate).exp()) * up;
  });
}

inline void add(const AddArgs& a, Context& context) {
  detail::for_row_pieces(a.a, a.b, a.out, context, [](auto x, auto y, auto out) { out = x + y; });
}

}  // namespace spectx::cpu
