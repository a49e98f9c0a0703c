// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>

#include "spectx/cpu/context.hpp"
#include "spectx/cpu/kv_rows.hpp"
#include "spectx/dispatch.hpp"

namespace spectx::cpu {

namespace detail {

struct MinAndMean {
  float min, mean;
};

/// Over the query heads of head `head` of the keys and the item's leads.
template <class T>
MinAndMean coverage_of(const CoverageArgs& a, index_t item, index_t head, const std::int32_t* ids,
                       index_t count, float* scratch) noexcept {
  using Vector = Eigen::Map<const Eigen::VectorXf>;
  const Batch& batch = *a.batch;
  const index_t first_lead = batch.lead_begin.data[item];
  const index_t leads = batch.lead_begin.data[item + 1] - first_lead;
  const index_t first = batch.position.data[batch.row_begin.data[item]];
  const index_t group = a.q.shape[1] / a.keys.kv_heads;
  const index_t request = batch.request.data[item];
  const index_t masses = leads * group;
  float* const key = scratch;
  float* const mass = scratch + padded<float>(a.keys.k_dim);
  std::fill_n(mass, masses, 0.0F);
  for (index_t rank = 0; rank < count; ++rank) {
    const index_t id = ids[rank];
    if (id < 1 || id > first) continue;  // outside the sum of score
    const std::byte* const from = a.keys.row(request, head, id) + a.keys.k_offset;
    to_floats(reinterpret_cast<const T*>(from), a.keys.k_dim, key);
    for (index_t i = 0; i < masses; ++i) {
      const index_t lead = first_lead + i / group;
      const index_t h = head * group + i % group;
      const float product =
          Vector(row<const float>(a.q, lead, h), a.keys.k_dim).dot(Vector(key, a.keys.k_dim));
      mass[i] += std::exp(product * a.scale - row<const float>(a.log_sum, lead)[h]);
    }
  }
  const Eigen::Map<const Eigen::ArrayXf> all(mass, masses);
  return {all.minCoeff(), all.mean()};
}

}  // namespace detail

inline void coverage(const CoverageArgs& a, Context& context) {
  const Batch& batch = *a.batch;
  const index_t kv_heads = num_kv_heads(a.head_of_kv_head, a.keys.kv_heads);
  assert(a.q.dtype == DType::f32 && a.log_sum.dtype == DType::f32);
  assert(a.selection.coverage.size >= num_items(batch) * kv_heads * 2);
  dispatch_dtype(a.keys.dtype, [&]<class T>() {
    context.for_each(num_items(batch) * kv_heads, [&](index_t task, int thread) {
      const index_t item = task / kv_heads;
      const index_t count = a.selection.counts.data[task];
      const bool has_candidates = batch.position.data[batch.row_begin.data[item]] > 0;
      detail::MinAndMean covered{1, 1};
      if (batch.selects.data[item] != 0 && count != kAllTokens && has_candidates) {
        const index_t leads = batch.lead_begin.data[item + 1] - batch.lead_begin.data[item];
        const index_t floats = padded<float>(a.keys.k_dim) + leads * a.q.shape[1];
        Carver carver(context.of_thread(thread).reserve(floats * 4));
        covered = detail::coverage_of<T>(a, item, serving_head(a.head_of_kv_head, task % kv_heads),
                                         a.selection.ids.data + task * a.selection.max_budget,
                                         count, carver.take<float>(floats));
      }
      a.selection.coverage.data[2 * task] = covered.min;
      a.selection.coverage.data[2 * task + 1] = covered.mean;
    });
  });
}

}  // namespace spectx::cpu
