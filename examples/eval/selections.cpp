// SPDX-License-Identifier: Apache-2.0
#include "eval/selections.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

namespace spectx::eval {

namespace {

/// The `wanted` best of ascending candidates, ties to the lower id, to `out`, ascending.
void keep_best(std::span<const float> scores, std::span<const std::int32_t> candidates,
               std::span<std::int32_t> out, std::vector<float>& room) {
  if (out.empty()) return;
  room.clear();
  for (const std::int32_t id : candidates) room.push_back(scores[static_cast<std::size_t>(id)]);
  const auto last = room.begin() + static_cast<std::ptrdiff_t>(out.size()) - 1;
  std::nth_element(room.begin(), last, room.end(), std::greater<>());
  const float lowest = *last;
  const auto above = std::count_if(room.begin(), last, [&](float x) { return x > lowest; });
  std::size_t ties = out.size() - static_cast<std::size_t>(above);
  auto to = out.begin();
  for (const std::int32_t id : candidates) {
    const float score = scores[static_cast<std::size_t>(id)];
    if (score < lowest || (score == lowest && ties == 0)) continue;
    ties -= score == lowest ? 1 : 0;
    *to++ = id;
  }
}

}  // namespace

/// A smaller budget keeps the best of what a larger one has.
void pick(std::span<const float> scores, const SelectionConfig& rule,
          std::span<const std::span<std::int32_t>> rooms) {
  const auto sinks = static_cast<std::size_t>(rule.sinks);
  const auto window = static_cast<std::size_t>(rule.recent_window);
  std::vector<std::int32_t> all(scores.size() - sinks - window);
  std::iota(all.begin(), all.end(), static_cast<std::int32_t>(sinks));
  std::span<const std::int32_t> candidates = all;
  std::vector<float> values;
  for (std::size_t r = rooms.size(); r-- > 0;) {
    const std::span<std::int32_t> ids = rooms[r];
    const std::span<std::int32_t> middle = ids.subspan(sinks, ids.size() - sinks - window);
    keep_best(scores, candidates, middle, values);
    candidates = middle;
    std::iota(ids.begin(), ids.begin() + rule.sinks, 0);
    std::iota(ids.end() - rule.recent_window, ids.end(),
              static_cast<std::int32_t>(scores.size() - window));
  }
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
