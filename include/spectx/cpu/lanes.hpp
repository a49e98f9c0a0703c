// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <array>
#include <cassert>

#include "spectx/dispatch.hpp"

// Products of a few queries with rows that lie anywhere, in their storage type: the inner loops of
// everything that is bound by reading rows once.
namespace spectx::cpu {

inline constexpr index_t kLanes = 16;  // one register of AVX-512, two of AVX2, four of SSE and NEON
using Lanes = Eigen::Array<float, kLanes, 1>;

inline Lanes load(const float* from) noexcept { return Eigen::Map<const Lanes>(from); }

template <class T>
Lanes load(const T* from) noexcept {
  Lanes lanes;
  for (index_t i = 0; i < kLanes; ++i) lanes[i] = to_float(from[i]);
  return lanes;
}

/// `count` < kLanes elements, then zeros.
template <class T>
Lanes load(const T* from, index_t count) noexcept {
  Lanes lanes = Lanes::Zero();
  for (index_t i = 0; i < count; ++i) lanes[i] = to_float(from[i]);
  return lanes;
}

/// Queries of one call, `stride` floats apart.
struct Vectors {
  const float* data;
  index_t stride;
};

/// to[g * to_stride + i] = query g . row i, over `dim` elements.
template <index_t kQueries, class T, class RowAt>
void dot_rows(const Vectors& queries, index_t count, index_t dim, RowAt row_at, float* to,
              index_t to_stride) noexcept {
  const index_t whole = dim / kLanes * kLanes;
  for (index_t i = 0; i < count; ++i) {
    const T* const row = row_at(i);
    std::array<Lanes, kQueries> sums;
    for (Lanes& sum : sums) sum.setZero();
    for (index_t d = 0; d < whole; d += kLanes) {
      const Lanes x = load(row + d);
      for (index_t g = 0; g < kQueries; ++g) {
        sums[static_cast<std::size_t>(g)] += x * load(queries.data + g * queries.stride + d);
      }
    }
    if (whole < dim) {
      const Lanes x = load(row + whole, dim - whole);
      for (index_t g = 0; g < kQueries; ++g) {
        sums[static_cast<std::size_t>(g)] +=
            x * load(queries.data + g * queries.stride + whole, dim - whole);
      }
    }
    for (index_t g = 0; g < kQueries; ++g) {
      to[g * to_stride + i] = sums[static_cast<std::size_t>(g)].sum();
    }
  }
}

/// to[g * to_stride + d] = sum over rows i of weights[g * weights.stride + i] * row i [d].
template <index_t kQueries, class T, class RowAt>
void sum_rows(const Vectors& weights, index_t count, index_t dim, RowAt row_at, float* to,
              index_t to_stride) noexcept {
  const auto sum = [&](index_t d, auto load_lanes) {
    std::array<Lanes, kQueries> sums;
    for (Lanes& s : sums) s.setZero();
    for (index_t i = 0; i < count; ++i) {
      const Lanes x = load_lanes(row_at(i) + d);
      for (index_t g = 0; g < kQueries; ++g) {
        sums[static_cast<std::size_t>(g)] += x * weights.data[g * weights.stride + i];
      }
    }
    return sums;
  };
  for (index_t d = 0; d < dim; d += kLanes) {
    const index_t left = std::min(kLanes, dim - d);
    const std::array<Lanes, kQueries> sums =
        left == kLanes ? sum(d, [](const T* p) { return load(p); })
                       : sum(d, [left](const T* p) { return load(p, left); });
    for (index_t g = 0; g < kQueries; ++g) {
      const Lanes& s = sums[static_cast<std::size_t>(g)];
      std::copy_n(s.data(), left, to + g * to_stride + d);
    }
  }
}

/// body.operator()<n>(first) over runs of at most four queries: as many as the registers hold.
template <class Body>
void for_query_runs(index_t queries, Body&& body) {
  for (index_t first = 0; first < queries; first += 4) {
    dispatch_value<1, 2, 3, 4>(std::min(queries - first, index_t{4}), [&]<index_t kQueries>() {
      body.template operator()<kQueries>(first);
    });
  }
}

}  // namespace spectx::cpu
