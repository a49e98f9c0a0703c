// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "compare.hpp"
#include "spectx/backend.hpp"

// The obvious loops, in double precision. Tolerances: a float sum of n products in any order is
// within c * eps * sum |x||y| of the exact one, c <= log2(n) + 2 for the trees and splits that a
// backend may use; kSumSlack = 32 also covers the running sums of up to 2^5 blocks.
namespace spectx::test {

inline constexpr double kSumSlack = 32;

inline std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

struct Dot {
  double value = 0;
  double magnitude = 0;  // sum |x||y|
};

template <class X, class Y>
Dot dot(const X* x, const Y* y, index_t count) {
  Dot sum;
  for (index_t i = 0; i < count; ++i) {
    const double product = static_cast<double>(x[i]) * static_cast<double>(y[i]);
    sum.value += product;
    sum.magnitude += std::abs(product);
  }
  return sum;
}

/// x [rows, in], w [out, in], before [rows, out]
inline std::vector<Bound> matmul_reference(const std::vector<float>& x, const std::vector<float>& w,
                                           const std::vector<float>& before, index_t rows,
                                           index_t in, index_t out, float beta) {
  std::vector<Bound> bounds;
  for (index_t i = 0; i < rows; ++i) {
    for (index_t o = 0; o < out; ++o) {
      const Dot sum = dot(x.data() + i * in, w.data() + o * in, in);
      const double kept =
          beta == 0 ? 0 : static_cast<double>(beta) * static_cast<double>(before[at(i * out + o)]);
      bounds.push_back({sum.value + kept, kSumSlack * kEpsilon * (sum.magnitude + std::abs(kept))});
    }
  }
  return bounds;
}

/// A row of a cache, as doubles.
struct KeyAndValue {
  std::vector<double> k, v;
};

/// One query over the rows that it sees. A weight exp(s - m) carries the error of s (kSumSlack *
/// eps
/// * sum |q||k| * scale) relative to it, and the weighted sum that of its own additions.
inline std::vector<Bound> attend_reference(const float* q, const std::vector<KeyAndValue>& rows,
                                           index_t v_dim, double scale) {
  std::vector<double> scores;
  double error = 0;
  double largest = -std::numeric_limits<double>::infinity();
  for (const KeyAndValue& row : rows) {
    const Dot s = dot(q, row.k.data(), static_cast<index_t>(row.k.size()));
    scores.push_back(s.value * scale);
    error = std::max(error, kSumSlack * kEpsilon * (s.magnitude * scale + 1));
    largest = std::max(largest, scores.back());
  }
  double weight = 0;
  std::vector<double> sum(at(v_dim)), magnitude(at(v_dim));
  for (std::size_t n = 0; n < rows.size(); ++n) {
    const double share = std::exp(scores[n] - largest);
    weight += share;
    for (std::size_t d = 0; d < sum.size(); ++d) {
      sum[d] += share * rows[n].v[d];
      magnitude[d] += share * std::abs(rows[n].v[d]);
    }
  }
  std::vector<Bound> bounds;
  for (std::size_t d = 0; d < sum.size(); ++d) {
    const double allowed = (2 * error + kSumSlack * kEpsilon) * magnitude[d] / weight;
    bounds.push_back(weight > 0 ? Bound{sum[d] / weight, allowed} : Bound{0, 0});
  }
  return bounds;
}

}  // namespace spectx::test
