// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "spectx/kv_pool.hpp"

namespace spectx::test {

/// Sinks, window, and every `stride`-th row between them while the budget lasts.
inline std::vector<std::int32_t> spread_selection(const SelectionConfig& rule, index_t length,
                                                  index_t stride) {
  std::vector<std::int32_t> ids;
  for (index_t id = 0; id < length; ++id) {
    const bool is_forced = id < rule.sinks || id >= length - rule.recent_window;
    const index_t left = rule.budget - rule.recent_window - static_cast<index_t>(ids.size());
    const bool fits = length <= rule.budget || is_forced || (left > 0 && id % stride == 0);
    if (fits) ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

/// The selection of one batch at a time, as any selector may write one.
class SimulatedSelections {
 public:
  SimulatedSelections(Backend& backend, const ModelShape& shape, const PoolPlan& plan)
      : backend_(backend),
        rule_(plan.selection),
        heads_(shape.kv_heads),
        memory_(backend.memories().device,
                plan.max_requests * shape.kv_heads * (plan.selection.budget + 1) * 4) {}

  /// @param stride  called for the stride of every list
  template <class Stride>
  Selection select(const Batch& batch, Stride&& stride, StreamView stream) {
    chosen.assign(batch.items.size() * static_cast<std::size_t>(heads_), {});
    std::vector<std::int32_t> ids(chosen.size() * static_cast<std::size_t>(rule_.budget));
    std::vector<std::int32_t> counts;
    for (std::size_t list = 0; list < chosen.size(); ++list) {
      const ScheduledItem& item = batch.items[list / static_cast<std::size_t>(heads_)];
      chosen[list] = spread_selection(rule_, item.first + item.rows, stride());
      const std::size_t at = list * static_cast<std::size_t>(rule_.budget);
      std::copy(chosen[list].begin(), chosen[list].end(),
                ids.begin() + static_cast<std::ptrdiff_t>(at));
      counts.push_back(item.selects ? static_cast<std::int32_t>(chosen[list].size()) : kAllTokens);
    }
    auto* device_ids = reinterpret_cast<std::int32_t*>(memory_.data());
    auto* device_counts = device_ids + ids.size();
    backend_.copy(device_ids, ids.data(), static_cast<index_t>(ids.size() * 4), stream);
    backend_.copy(device_counts, counts.data(), static_cast<index_t>(counts.size() * 4), stream);
    return {.ids = {device_ids, static_cast<index_t>(ids.size())},
            .counts = {device_counts, static_cast<index_t>(counts.size())},
            .coverage = {},
            .max_budget = rule_.budget};
  }

  std::vector<std::vector<std::int32_t>> chosen;  // [items, kv_heads] of the last one

 private:
  Backend& backend_;
  SelectionConfig rule_;
  index_t heads_;
  Buffer memory_;
};

}  // namespace spectx::test
