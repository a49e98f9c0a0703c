// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <array>
#include <type_traits>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/lanes.hpp"
#include "spectx/cpu/rows.hpp"

namespace spectx::cpu {

namespace detail {

/// Few rows: bound by the reading of the weights. Each is read once for up to four rows, and a
/// row's sums do not depend on the others.
template <class T>
void matmul_few_rows(const MatmulArgs& a, Context& context) {
  constexpr index_t kFeatures = 64;  // outputs at a time
  const index_t in = a.w.shape[1];
  const index_t out_stride = a.out.strides[0];
  const index_t weight_bytes = in * index_t{sizeof(T)};
  context.for_ranges(a.w.shape[0], weight_bytes, [&](index_t begin, index_t end, int) {
    std::array<float, 4 * kFeatures> sums;
    for (index_t first = begin; first < end; first += kFeatures) {
      const index_t count = std::min(kFeatures, end - first);
      const auto weights_at = [&](index_t i) { return row<const T>(a.w, first + i); };
      for_query_runs(a.x.shape[0], [&]<index_t kRows>(index_t i) {
        dot_rows<kRows, T>({row<const float>(a.x, i), a.x.strides[0]}, count, in, weights_at,
                           sums.data(), kFeatures);
        for (index_t r = 0; r < kRows; ++r) {
          float* const out = row(a.out, i) + r * out_stride + first;
          const float* const from = sums.data() + r * kFeatures;
          for (index_t o = 0; o < count; ++o) {
            out[o] = from[o] + (a.beta == 0 ? 0 : a.beta * out[o]);
          }
        }
      });
    }
  });
}

/// Many rows: bound by arithmetic. Each task makes a panel of output columns.
template <class T>
void matmul_many_rows(const MatmulArgs& a, Context& context) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Eigen::Map;
  using Eigen::OuterStride;
  constexpr index_t kLargestPanel = 240;
  constexpr index_t kGrain = 48;  // columns: a multiple of every register block of Eigen
  const index_t in = a.w.shape[1];
  const index_t features = a.w.shape[0];
  const index_t rows = a.x.shape[0];
  // As many panels for one thread as for the other, none of them too large.
  const index_t rounds = (features - 1) / (context.threads() * kLargestPanel) + 1;
  const index_t share = (features - 1) / (context.threads() * rounds) + 1;
  const index_t panel = (share + kGrain - 1) / kGrain * kGrain;
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
  if (rows == 0 || a.w.shape[0] == 0) return;
  dispatch_dtype(a.w.dtype, [&]<class T>() {
    if (rows <= kFewRows) {
      detail::matmul_few_rows<T>(a, context);
    } else {
      detail::matmul_many_rows<T>(a, context);
    }
  });
}

}  // namespace spectx::cpu
