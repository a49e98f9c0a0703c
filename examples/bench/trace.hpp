// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "spectx/selection.hpp"

namespace spectx::bench {

/// Selections that a real head made, step after step; data/traces/README.md has the format.
class RecordedTrace {
 public:
  /// Throws FileError for a file that is not one.
  explicit RecordedTrace(const std::string& path);

  index_t heads() const noexcept { return static_cast<index_t>(steps_.size()); }
  index_t steps() const noexcept { return static_cast<index_t>(steps_.front().size()); }
  index_t budget() const noexcept { return budget_; }
  /// Ascending ids. Runs forth and back, so that there is no jump however many steps are asked for.
  const std::vector<std::int32_t>& at(index_t head, index_t step) const;

 private:
  index_t budget_ = 0;
  std::vector<std::vector<std::vector<std::int32_t>>> steps_;  // [heads][steps][budget]
};

/// What is replayed: the recorded selections scaled to another budget and to any length.
struct ReplayShape {
  SelectionConfig selection;
  index_t kv_heads = 0;
  double random_share = 0;  // of the budget, swapped for random rows in every step
};

/// The selection of one KV head of a request of `length` tokens, the step's included, ids
/// ascending, budget of them: the sinks, scaled blocks of the recorded ids, the window. All rows of
/// a request that is no longer than the budget. A recorded id becomes budget / recorded budget
/// neighbouring rows; where the request is too short for it, it has another place, which it keeps
/// until the request has grown to the one it lacks. Requests and heads run through the trace with
/// different phases. Depends on nothing else.
void scaled_selection(const RecordedTrace& trace, const ReplayShape& shape, index_t request,
                      index_t head, index_t length, std::int32_t* ids);

/// Share of the budget that is fetched in a step after `context` tokens with an LRU buffer of
/// `slots` rows, mean over `steps` steps after the buffer has filled and over the heads of one
/// request.
double replayed_miss_rate(const RecordedTrace& trace, const ReplayShape& shape, index_t context,
                          index_t slots, index_t steps);

/// The random share that makes misses `scale` times as many.
double random_share_for(const RecordedTrace& trace, ReplayShape shape, index_t context,
                        index_t slots, double scale);

}  // namespace spectx::bench
