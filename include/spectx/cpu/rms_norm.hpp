// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <cmath>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"
#include "spectx/dispatch.hpp"

namespace spectx::cpu {

inline void rms_norm(const RmsNormArgs& a, Context& context) {
  using Eigen::ArrayXf;
  using Eigen::Map;
  const index_t heads = a.x.rank > 2 ? a.x.shape[1] : 1;
  const index_t dim = a.weight.shape[0];
  float* const weight = Carver(context.shared().reserve(padded<float>(dim) * 4)).take<float>(dim);
  dispatch_dtype(a.weight.dtype,
                 [&]<class T>() { to_floats(a.weight.as<const T>(), dim, weight); });
  context.for_ranges(a.x.shape[0] * heads, dim * 8, [&](index_t begin, index_t end, int) {
    for (index_t n = begin; n < end; ++n) {
      const index_t i = n / heads;
      const index_t head = n % heads;
      const Map<const ArrayXf> x(row<const float>(a.x, i, head), dim);
      const float mean = x.square().sum() / static_cast<float>(dim);
      Map<ArrayXf>(row(a.out, i, head), dim) =
          x * Map<const ArrayXf>(weight, dim) * (1 / std::sqrt(mean + a.eps));
    }
  });
}

}  // namespace spectx::cpu
