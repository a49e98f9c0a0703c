// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <algorithm>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"

namespace spectx::cpu {

inline void argmax(const ArgmaxArgs& a, Context& context) {
  const index_t vocabulary = a.logits.shape[1];
  context.for_ranges(a.logits.shape[0], vocabulary * 4, [&](index_t begin, index_t end, int) {
    for (index_t i = begin; i < end; ++i) {
      const float* const logits = row<const float>(a.logits, i);
      const float largest =
          Eigen::Map<const Eigen::ArrayXf>(logits, vocabulary).maxCoeff<Eigen::PropagateNumbers>();
      const float* const found = std::find(logits, logits + vocabulary, largest);
      // Not found: every logit is NaN, and the lowest index is the answer.
      a.out.data[i] = found == logits + vocabulary ? 0 : static_cast<std::int32_t>(found - logits);
    }
  });
}

}  // namespace spectx::cpu
