// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <vector>

#include "reference.hpp"
#include "spectx/rope.hpp"
#include "spectx/selection_args.hpp"

namespace spectx::test {

/// Numbers in double precision, each with a bound on the error of the same computation in float.
struct Approximate {
  std::vector<double> value, error;

  void add(double v, double e) {
    value.push_back(v);
    error.push_back(e);
  }
};

/// The relative error of a number that was rounded to `dtype`, beyond what float computations have.
inline double rounding_of(DType dtype) {
  return dtype == DType::f32 ? 0 : dtype == DType::f16 ? 0x1p-11 : 0x1p-8;
}
/// As numbers from `first` on were stored in a type of this rounding.
inline void store(double rounding, Approximate& x, std::size_t first = 0) {
  for (std::size_t i = first; i < x.value.size(); ++i) {
    x.error[i] += rounding * (std::abs(x.value[i]) + x.error[i]);
  }
}

/// w x, w [rows, x]
inline Approximate project(const std::vector<float>& w, const Approximate& x) {
  Approximate out;
  const auto width = static_cast<index_t>(x.value.size());
  for (index_t o = 0; o * width < static_cast<index_t>(w.size()); ++o) {
    const Dot sum = dot(w.data() + o * width, x.value.data(), width);
    const Dot error = dot(w.data() + o * width, x.error.data(), width);
    out.add(sum.value, error.magnitude + kSumSlack * kEpsilon * sum.magnitude);
  }
  return out;
}
/// Appends x / sqrt(mean(x^2) + eps) * weight to `out`.
inline void normalise(const Approximate& x, const std::vector<float>& weight, float eps,
                      Approximate& out) {
  double square = 0;
  double error = 0;
  for (std::size_t i = 0; i < x.value.size(); ++i) {
    square += x.value[i] * x.value[i];
    error += x.error[i] * x.error[i];
  }
  const auto count = static_cast<double>(x.value.size());
  const double rms = std::sqrt(square / count + static_cast<double>(eps));
  const double relative = std::sqrt(error / count) / rms + kSumSlack * kEpsilon;
  for (std::size_t i = 0; i < x.value.size(); ++i) {
    const double w = static_cast<double>(weight[i]) / rms;
    out.add(x.value[i] * w, x.error[i] * std::abs(w) + std::abs(x.value[i] * w) * relative);
  }
}

/// Rotates every `dim` numbers in place, half-split.
inline void rotate(const RopeFrequencies& rope, double position, index_t dim, Approximate& x) {
  const index_t half = dim / 2;
  for (std::size_t base = 0; base < x.value.size(); base += at(2 * half)) {
    for (std::size_t i = base; i < base + at(half); ++i) {
      const double angle = position * static_cast<double>(rope.frequency[i - base]);
      const double c = std::cos(angle) * static_cast<double>(rope.magnitude);
      const double s = std::sin(angle) * static_cast<double>(rope.magnitude);
      const double a = x.value[i], b = x.value[i + at(half)];
      const double error = (x.error[i] + x.error[i + at(half)] +
                            kSumSlack * kEpsilon * (std::abs(a) + std::abs(b))) *
                           static_cast<double>(rope.magnitude);
      x.value[i] = a * c - b * s;
      x.value[i + at(half)] = b * c + a * s;
      x.error[i] = x.error[i + at(half)] = error;
    }
  }
}

/// Log weights of several heads as one: max, or the log of the mean weight. Row 0 is left.
inline Approximate reduced(const std::vector<Approximate>& logs, GroupReduce reduce) {
  Approximate out = logs[0];
  for (std::size_t p = 1; p < out.value.size(); ++p) {
    double weight = 0;
    for (const Approximate& l : logs) {
      out.value[p] = std::max(out.value[p], l.value[p]);
      out.error[p] = std::max(out.error[p], l.error[p]);
      weight += std::exp(l.value[p]) / static_cast<double>(logs.size());
    }
    if (reduce == GroupReduce::mean) out.value[p] = std::log(weight);
  }
  return out;
}

/// to = max(to, from)
inline void raise(Approximate& to, const Approximate& from, bool is_first) {
  if (is_first) to = from;
  for (std::size_t p = 0; p < to.value.size(); ++p) {
    to.value[p] = std::max(to.value[p], from.value[p]);
    to.error[p] = std::max(to.error[p], from.error[p]);
  }
}

}  // namespace spectx::test
