// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "spectx/model_shape.hpp"

namespace spectx {

/// What Backend::rope needs of a Rope. Host data.
struct RopeFrequencies {
  std::vector<float> frequency;  // [dim / 2] radians a token
  float magnitude = 1;           // multiplies cos and sin
};

/// Frequencies of a rotary embedding over `dim` values of a head, scaling applied: linear divides
/// positions; llama3 and yarn (arXiv 2309.00071, eqs. 17-22) stretch the slow frequencies only.
/// Throws InvalidArgument for a scaling without the fields that it needs.
inline RopeFrequencies rope_frequencies(const Rope& rope, index_t dim) {
  expects(dim > 0 && dim % 2 == 0, "rope_frequencies: dim must be positive and even");
  expects(rope.theta > 0, "rope_frequencies: theta must be positive");
  expects(rope.scaling == RopeScaling::none || rope.factor >= 1,
          "rope_frequencies: factor must be at least 1");
  const bool needs_length =
      rope.scaling == RopeScaling::llama3 || rope.scaling == RopeScaling::yarn;
  expects(!needs_length || rope.original_length > 0,
          "rope_frequencies: llama3 and yarn need original_length");

  const double two_pi = 2 * std::numbers::pi;
  const double factor = rope.factor;
  const double length = rope.original_length;
  // yarn: the dimension whose frequency turns `rotations` times over the original length
  const auto yarn_dimension = [&](double rotations) {
    return static_cast<double>(dim) * std::log(length / (rotations * two_pi)) /
           (2 * std::log(static_cast<double>(rope.theta)));
  };
  RopeFrequencies out;
  double low = 0;
  double high = 0;
  if (rope.scaling == RopeScaling::yarn) {
    low = std::max(std::floor(yarn_dimension(rope.beta_fast)), 0.0);
    high = std::min(std::ceil(yarn_dimension(rope.beta_slow)), static_cast<double>(dim - 1));
    if (low == high) high += 0.001;
    out.magnitude = rope.attention_factor != 0 ? rope.attention_factor
                                               : static_cast<float>(0.1 * std::log(factor) + 1);
  }
  for (index_t i = 0; i < dim / 2; ++i) {
    const double base = std::pow(static_cast<double>(rope.theta),
                                 -2.0 * static_cast<double>(i) / static_cast<double>(dim));
    double value = base;
    switch (rope.scaling) {
      case RopeScaling::none:
        break;
      case RopeScaling::linear:
        value = base / factor;
        break;
      case RopeScaling::llama3: {
        const double rotations = length * base / two_pi;
        const double blend = (rotations - rope.low_freq_factor) /
                             (static_cast<double>(rope.high_freq_factor) - rope.low_freq_factor);
        const double kept = std::clamp(blend, 0.0, 1.0);
        value = base * (kept + (1 - kept) / factor);
        break;
      }
      case RopeScaling::yarn: {
        const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        value = base * (1 - ramp) + base / factor * ramp;
        break;
      }
    }
    out.frequency.push_back(static_cast<float>(value));
  }
  return out;
}

}  // namespace spectx
