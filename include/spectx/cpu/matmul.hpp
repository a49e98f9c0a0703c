// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <type_traits>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"
#include "spectx/dispatch.hpp"

namespace spectx::cpu {

namespace detail {

/// Few rows: bound by the reading of the weights. Every weight is converted once, in pieces that
/// stay in the nearest cache, and each row is summed on its own: neighbours do not change it.
template <class T>
void matmul_few_rows(const MatmulArgs& a, Context& context) {
  using Eigen::Map;
  using Eigen::VectorXf;
  constexpr index_t kPiece = 1024;  // weights: 4 KiB of floats
  const index_t in = a.w.shape[1];
  const index_t rows = a.x.shape[0];
  const index_t weight_bytes = in * static_cast<index_t>(sizeof(T));
  context.for_ranges(a.w.shape[0], weight_bytes, [&](index_t begin, index_t end, int) {
    alignas(64) float converted[kPiece];
    for (index_t o = begin; o < end; ++o) {
      const T* const weights = row<const T>(a.w, o);
      for (index_t from = 0; from < in || from == 0; from += kPiece) {
        const index_t count = std::min(kPiece, in - from);
        const float* w = converted;
        if constexpr (std::is_same_v<T, float>) {
          w = weights + from;
        } else {
          to_floats(weights + from, count, converted);
        }
        for (index_t i = 0; i < rows; ++i) {
          float& out = row(a.out, i)[o];
          const float before = from > 0 ? out : (a.beta == 0 ? 0 : a.beta * out);
          out = before + Map<const VectorXf>(row<const float>(a.x, i) + from, count)
                             .dot(Map<const VectorXf>(w, count));
        }
      }
    }
  });
}

/// Many rows: bound by arithmetic. Each task makes a panel of output columns.
template <class T>
void matmul_many_rows(const MatmulArgs& a, Context& context) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Eigen::Map;
  using Eigen::OuterStride;
  constexpr index_t kLargestPanel = 256;
  constexpr index_t kGrain = 48;  // columns: a multiple of every register block of Eigen
  const index_t in = a.w.shape[1];
  const index_t features = a.w.shape[0];
  const index_t rows = a.x.shape[0];
  const index_t share = features / context.threads() / kGrain * kGrain;
  const index_t panel = std::clamp(share, kGrain, kLargestPanel);
  context.for_each((features + panel - 1) / panel, [&](index_t task, int thread) {
    const index_t begin = task * panel;
    const index_t count = std::min(panel, features - begin);
    const float* weights = nullptr;
    index_t stride = in;
    if constexpr (std::is_same_v<T, float>) {
      weights = row<const float>(a.w, begin);
      stride = a.w.strides[0];
    } else {
      float* const to = Carver(context.of_thread(thread).reserve(count * in * 4)).take<float>(0);
      for (index_t o = 0; o < count; ++o) to_floats(row<const T>(a.w, begin + o), in, to + o * in);
      weights = to;
    }
    const Map<const Matrix, 0, OuterStride<>> x(row<const float>(a.x, 0), rows, in,
                                                OuterStride<>(a.x.strides[0]));
    const Map<const Matrix, 0, OuterStride<>> w(weights, count, in, OuterStride<>(stride));
    Map<Matrix, 0, OuterStride<>> out(row(a.out, 0) + begin, rows, count,
                                      OuterStride<>(a.out.strides[0]));
    if (a.beta == 0) {
      out.noalias() = x * w.transpose();
    } else {
      if (a.beta != 1) out *= a.beta;
      out.noalias() += x * w.transpose();
    }
  });
}

}  // namespace detail

inline void matmul(const MatmulArgs& a, Context& context) {
  constexpr index_t kFewRows = 8;
  const index_t rows = a.x.shape[0];
  assert(a.x.dtype == DType::f32 && a.out.dtype == DType::f32 && a.x.shape[1] == a.w.shape[1] &&
         a.out.shape[0] == rows && a.out.shape[1] == a.w.shape[0]);
  if (rows == 0) return;
  dispatch_dtype(a.w.dtype, [&]<class T>() {
    if (rows <= kFewRows) {
      detail::matmul_few_rows<T>(a, context);
    } else {
      detail::matmul_many_rows<T>(a, context);
    }
  });
}

}  // namespace spectx::cpu
