// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "spectx/kv_pool.hpp"

namespace spectx::test {

/// Which rows the items of a batch read: a selection that turns with its phase.
class RowChoice {
 public:
  using Ids = std::vector<std::int32_t>;

  RowChoice(const PoolPlan& plan, index_t kv_heads, MemoryResource& memory)
      : rule_(plan.selection),
        heads_(kv_heads),
        ids_(memory, plan.max_requests * kv_heads * (rule_.budget + 1) * 4) {}

  /// Sinks, window, and in the middle what `phase` chooses.
  Ids choose(index_t length, index_t head, index_t phase) const {
    const index_t middle = length - rule_.sinks - rule_.recent_window;
    const index_t wanted = rule_.budget - rule_.sinks - rule_.recent_window;
    Ids ids;
    for (index_t id = 0; id < length; ++id) {
      const index_t at = id - rule_.sinks;
      const bool is_forced = at < 0 || at >= middle;
      const bool is_chosen =
          middle > 0 && (at + phase * 3 + head) % middle < std::min(wanted, middle);
      if (length <= rule_.budget || is_forced || is_chosen) {
        ids.push_back(static_cast<std::int32_t>(id));
      }
    }
    return ids;
  }
  /// What an item reads: all, if it does not select.
  Ids read_by(const ScheduledItem& item, index_t head, index_t phase) const {
    if (item.selects) return choose(item.first + item.rows, head, phase);
    Ids all(static_cast<std::size_t>(item.first + item.rows));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  /// For all heads of all items, on the device until the next call.
  Selection select(Backend& backend, const Batch& batch, index_t phase, StreamView stream) {
    const auto count = static_cast<index_t>(batch.items.size()) * heads_;
    Ids ids(static_cast<std::size_t>(count * rule_.budget)), counts;
    for (index_t at = 0; at < count; ++at) {
      const ScheduledItem& item = batch.items[static_cast<std::size_t>(at / heads_)];
      const Ids mine = choose(item.first + item.rows, at % heads_, phase);
      std::copy(mine.begin(), mine.end(), ids.begin() + at * rule_.budget);
      counts.push_back(item.selects ? static_cast<std::int32_t>(mine.size()) : kAllTokens);
    }
    auto* const to = reinterpret_cast<std::int32_t*>(ids_.data());
    backend.copy(to, ids.data(), count * rule_.budget * 4, stream);
    backend.copy(to + count * rule_.budget, counts.data(), count * 4, stream);
    return {{to, count * rule_.budget}, {to + count * rule_.budget, count}, {}, rule_.budget};
  }

 private:
  SelectionConfig rule_;
  index_t heads_;
  Buffer ids_;
};

}  // namespace spectx::test
