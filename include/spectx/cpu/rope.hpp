// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <numbers>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"

namespace spectx::cpu {

inline void rope(const RopeArgs& a, Context& context) {
  using Eigen::ArrayXf;
  using Eigen::Map;
  constexpr double kTurn = 2 * std::numbers::pi;
  const index_t heads = a.x.shape[1];
  const index_t half = a.x.shape[2] / 2;
  const Map<const ArrayXf> frequency(a.frequency.data, half);

  context.for_ranges(a.x.shape[0], heads * half * 16, [&](index_t begin, index_t end, int thread) {
    Carver carver(context.of_thread(thread).reserve(4 * padded<float>(half) * 4));
    Map<ArrayXf> angle(carver.take<float>(half), half);
    Map<ArrayXf> cosine(carver.take<float>(half), half);
    Map<ArrayXf> sine(carver.take<float>(half), half);
    Map<ArrayXf> first(carver.take<float>(half), half);
    for (index_t i = begin; i < end; ++i) {
      const index_t of = batch_row(a.row_index, i);
      if (of < 0) continue;
      const double position = static_cast<double>(a.position.data[of] + a.position_offset);
      // Whole turns go in double: position * frequency in float is off by 0.01 at position 100,000.
      for (index_t j = 0; j < half; ++j) {
        const double turns = position * static_cast<double>(frequency[j]) / kTurn;
        angle[j] = static_cast<float>((turns - std::floor(turns + 0.5)) * kTurn);
      }
      cosine = angle.cos() * a.magnitude;
      sine = angle.sin() * a.magnitude;
      for (index_t h = 0; h < heads; ++h) {
        float* const x = row(a.x, i, h);
        Map<ArrayXf> low(x, half);
        Map<ArrayXf> high(x + half, half);
        first = low;
        low = first * cosine - high * sine;
        high = high * cosine + first * sine;
      }
    }
  });
}

}  // namespace spectx::cpu
