// SPDX-License-Identifier: Apache-2.0
#include "eval/selections.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

namespace spectx::eval {

void pick(std::span<const float> scores, const SelectionConfig& rule, std::span<std::int32_t> ids) {
  const auto sinks = static_cast<std::size_t>(rule.sinks);
  const auto window = static_cast<std::size_t>(rule.recent_window);
  const auto wanted = static_cast<std::size_t>(rule.budget) - sinks - window;
  const auto middle = scores.subspan(sinks, scores.size() - sinks - window);
  std::vector<float> ordered(middle.begin(), middle.end());
  const auto last = ordered.begin() + static_cast<std::ptrdiff_t>(wanted) - 1;
  std::nth_element(ordered.begin(), last, ordered.end(), std::greater<>());
  const float lowest = *last;
  auto ties = wanted - static_cast<std::size_t>(std::count_if(ordered.begin(), last,
                                                              [&](float x) { return x > lowest; }));
  std::iota(ids.begin(), ids.begin() + rule.sinks, 0);
  auto to = ids.begin() + rule.sinks;
  for (std::size_t i = 0; i < middle.size(); ++i) {
    const bool is_tie = middle[i] == lowest && ties > 0;
    ties -= is_tie ? 1 : 0;
    if (middle[i] > lowest || is_tie) *to++ = static_cast<std::int32_t>(sinks + i);
  }
  std::iota(to, ids.end(), static_cast<std::int32_t>(scores.size() - window));
}

double Recorded::overlap() const {
  index_t kept = 0;
  index_t all = 0;
  std::vector<std::int32_t> both;
  for (index_t step = 1; step < steps(); ++step) {
    for (index_t set = 0; set < sets_; ++set) {
      for (index_t h = 0; h < kv_heads_; ++h) {
        const auto before = ids(step - 1, set, h);
        const auto now = ids(step, set, h);
        both.clear();
        std::set_intersection(before.begin(), before.end(), now.begin(), now.end(),
                              std::back_inserter(both));
        kept += static_cast<index_t>(both.size());
        all += static_cast<index_t>(now.size());
      }
    }
  }
  return all == 0 ? 1 : static_cast<double>(kept) / static_cast<double>(all);
}

}  // namespace spectx::eval
