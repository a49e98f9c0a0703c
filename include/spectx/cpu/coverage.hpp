// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>

#include "spectx/cpu/context.hpp"
#include "spectx/cpu/kv_rows.hpp"
#include "spectx/cpu/lanes.hpp"

namespace spectx::cpu {

namespace detail {

struct MinAndMean {
  float min, mean;
};

/// Over the query heads of head `head` of the keys and the item's leads. `ids`: of the rows that
/// score summed over.
template <class T>
MinAndMean coverage_of(const CoverageArgs& a, index_t item, index_t head, const std::int32_t* ids,
                       index_t count, Scratch& scratch) {
  const Batch& batch = *a.batch;
  const index_t first_lead = batch.lead_begin.data[item];
  const index_t leads = batch.lead_begin.data[item + 1] - first_lead;
  const index_t group = a.q.shape[1] / a.keys.kv_heads;
  Carver carver(scratch.reserve(padded<const std::byte*>(count) * index_t{sizeof(std::byte*)} +
                                padded<float>(count) * 4));
  const std::byte** const rows = carver.take<const std::byte*>(count);
  float* const products = carver.take<float>(count);
  KVRows::find(a.keys, batch.request.data[item], head, ids, count, rows);
  const auto key_at = [&](index_t i) { return reinterpret_cast<const T*>(rows[i]); };
  MinAndMean covered{1, 0};
  for (index_t i = 0; i < leads * group; ++i) {
    const index_t lead = first_lead + i / group;
    const index_t h = head * group + i % group;
    dot_rows<1, T>({row<const float>(a.q, lead, h), 0}, count, a.keys.k_dim, key_at, products, 0);
    const Eigen::Map<const Eigen::ArrayXf> p(products, count);
    const float mass = (p * a.scale - row<const float>(a.log_sum, lead)[h]).exp().sum();
    covered.min = std::min(covered.min, mass);
    covered.mean += mass / static_cast<float>(leads * group);
  }
  return covered;
}

}  // namespace detail

inline void coverage(const CoverageArgs& a, Context& context) {
  const Batch& batch = *a.batch;
  const index_t kv_heads = num_kv_heads(a.head_of_kv_head, a.keys.kv_heads);
  dispatch_dtype(a.keys.dtype, [&]<class T>() {
    context.for_each(num_items(batch) * kv_heads, [&](index_t task, int thread) {
      const index_t item = task / kv_heads;
      if (a.budgets.size > 0 && a.budgets.data[item] == 0) return;
      const index_t count = a.selection.counts.data[task];
      const std::int32_t first = batch.position.data[batch.row_begin.data[item]];
      detail::MinAndMean covered{1, 1};
      if (batch.selects.data[item] != 0 && count != kAllTokens && first > 0) {
        const std::int32_t* const ids = a.selection.ids.data + task * a.selection.max_budget;
        const std::int32_t* const begin = std::lower_bound(ids, ids + count, 1);
        const std::int32_t* const end = std::upper_bound(begin, ids + count, first);
        covered = detail::coverage_of<T>(a, item, serving_head(a.head_of_kv_head, task % kv_heads),
                                         begin, end - begin, context.of_thread(thread));
      }
      a.selection.coverage.data[2 * task] = covered.min;
      a.selection.coverage.data[2 * task + 1] = covered.mean;
    });
  });
}

}  // namespace spectx::cpu
