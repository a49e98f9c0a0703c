// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <array>
#include <cassert>
#include <type_traits>
#include <utility>

#include "spectx/dispatch.hpp"

// Products of a few queries with rows that lie anywhere, in their storage type: the inner loops of
// everything that is bound by reading rows once.
namespace spectx::cpu {

inline constexpr index_t kLanes = 16;  // one register of AVX-512, two of AVX2, four of SSE and NEON
using Lanes = Eigen::Array<float, kLanes, 1>;

/// Rows, or registers of one row, whose sums are held at a time: AVX-512 has 32 registers for them,
/// what has narrower ones has none to spare.
inline constexpr std::size_t kTogether =
    Eigen::internal::packet_traits<float>::size >= kLanes ? 2 : 1;

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

namespace detail {

template <std::size_t kQueries>
using Sums = std::array<Lanes, kQueries>;

/// body(0), body(1), ... with constants, so that arrays of sums become registers.
template <std::size_t kCount, class Body>
void unrolled(Body&& body) noexcept {
  [&]<std::size_t... kIndices>(std::index_sequence<kIndices...>) {
    (body(std::integral_constant<std::size_t, kIndices>{}), ...);
  }
  (std::make_index_sequence<kCount>{});
}

/// dot_rows of rows [begin, end), kRows at a time, up to element `whole`, a multiple of kLanes.
/// Returns the first row that is left.
template <std::size_t kQueries, std::size_t kRows, class T, class RowAt>
index_t dot_whole(const Vectors& queries, index_t begin, index_t end, index_t whole, RowAt row_at,
                  float* to, index_t to_stride) noexcept {
  for (; begin + static_cast<index_t>(kRows) <= end; begin += kRows) {
    std::array<const T*, kRows> rows;
    std::array<Sums<kQueries>, kRows> sums;
    unrolled<kRows>([&](auto r) {
      rows[r] = row_at(begin + static_cast<index_t>(r()));
      unrolled<kQueries>([&](auto g) { sums[r][g].setZero(); });
    });
    for (index_t d = 0; d < whole; d += kLanes) {
      std::array<Lanes, kRows> x;
      unrolled<kRows>([&](auto r) { x[r] = load(rows[r] + d); });
      unrolled<kQueries>([&](auto g) {
        const Lanes q = load(queries.data + static_cast<index_t>(g()) * queries.stride + d);
        unrolled<kRows>([&](auto r) { sums[r][g] += x[r] * q; });
      });
    }
    unrolled<kQueries>([&](auto g) {
      float* const next = to + static_cast<index_t>(g()) * to_stride + begin;
      unrolled<kRows>([&](auto r) { next[r] = sums[r][g].sum(); });
    });
  }
  return begin;
}

}  // namespace detail

/// to[g * to_stride + i] = query g . row i, over `dim` elements.
template <std::size_t kQueries, class T, class RowAt>
void dot_rows(const Vectors& queries, index_t count, index_t dim, RowAt row_at, float* to,
              index_t to_stride) noexcept {
  const index_t whole = dim / kLanes * kLanes;
  const index_t left =
      detail::dot_whole<kQueries, kTogether, T>(queries, 0, count, whole, row_at, to, to_stride);
  detail::dot_whole<kQueries, 1, T>(queries, left, count, whole, row_at, to, to_stride);
  if (whole == dim) return;
  for (index_t i = 0; i < count; ++i) {
    const T* const row = row_at(i);
    for (std::size_t g = 0; g < kQueries; ++g) {
      const float* const query = queries.data + static_cast<index_t>(g) * queries.stride;
      float& sum = to[static_cast<index_t>(g) * to_stride + i];
      for (index_t d = whole; d < dim; ++d) sum += to_float(row[d]) * query[d];
    }
  }
}

namespace detail {

/// The part of sum_rows at elements [d, d + kBlocks * kLanes), of which `left` exist.
template <std::size_t kQueries, std::size_t kBlocks, class RowAt, class Load>
void sum_part(const Vectors& weights, index_t count, index_t d, index_t left, RowAt row_at,
              Load load_row, float* to, index_t to_stride) noexcept {
  std::array<Sums<kQueries>, kBlocks> sums;
  unrolled<kBlocks>(
      [&](auto block) { unrolled<kQueries>([&](auto g) { sums[block][g].setZero(); }); });
  for (index_t i = 0; i < count; ++i) {
    const auto* const row = row_at(i) + d;
    unrolled<kBlocks>([&](auto block) {
      const Lanes x = load_row(row + block * kLanes);
      unrolled<kQueries>([&](auto g) {
        sums[block][g] += x * weights.data[static_cast<index_t>(g()) * weights.stride + i];
      });
    });
  }
  unrolled<kBlocks>([&](auto block) {
    const index_t first = static_cast<index_t>(block()) * kLanes;
    const index_t elements = std::min(left - first, kLanes);
    unrolled<kQueries>([&](auto g) {
      std::copy_n(sums[block][g].data(), elements,
                  to + static_cast<index_t>(g()) * to_stride + d + first);
    });
  });
}

}  // namespace detail

/// to[g * to_stride + d] = sum over rows i of weights[g * weights.stride + i] *
/// row i [d].
template <std::size_t kQueries, class T, class RowAt>
void sum_rows(const Vectors& weights, index_t count, index_t dim, RowAt row_at, float* to,
              index_t to_stride) noexcept {
  constexpr index_t kWide = static_cast<index_t>(kTogether) * kLanes;
  const auto whole = [](const T* from) { return load(from); };
  index_t d = 0;
  for (; d + kWide <= dim; d += kWide) {
    detail::sum_part<kQueries, kTogether>(weights, count, d, dim - d, row_at, whole, to, to_stride);
  }
  for (; d < dim; d += kLanes) {
    const index_t left = dim - d;
    if (left >= kLanes) {
      detail::sum_part<kQueries, 1>(weights, count, d, left, row_at, whole, to, to_stride);
    } else {
      const auto rest = [left](const T* from) { return load(from, left); };
      detail::sum_part<kQueries, 1>(weights, count, d, left, row_at, rest, to, to_stride);
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
