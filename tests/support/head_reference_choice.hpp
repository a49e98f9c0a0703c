// SPDX-License-Identifier: Apache-2.0
#pragma once

// What HeadReference chooses; include head_reference.hpp.
#include "head_reference.hpp"

namespace spectx::test {

inline std::vector<std::int32_t> HeadReference::chosen(index_t target_head, index_t rows,
                                                       const SelectionConfig& rule,
                                                       std::int32_t& last) const {
  const Approximate& s = scores_[at(map_[at(target_head)])];
  const index_t total = length() + rows;
  std::vector<std::int32_t> order(at(total)), ids;
  std::iota(order.begin(), order.end(), 0);
  if (total <= rule.budget) return order;
  ids.assign(order.begin(), order.begin() + rule.sinks);
  ids.insert(ids.end(), order.end() - rule.recent_window, order.end());
  order.erase(order.end() - rule.recent_window, order.end());
  order.erase(order.begin(), order.begin() + rule.sinks);
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return s.value[at(a)] > s.value[at(b)]; });
  order.resize(at(rule.budget) - ids.size());
  last = order.back();
  ids.insert(ids.end(), order.begin(), order.end());
  std::sort(ids.begin(), ids.end());
  return ids;
}

inline HeadReference::Match HeadReference::match(const std::vector<std::int32_t>& ids,
                                                 index_t target_head, index_t rows,
                                                 const SelectionConfig& rule) const {
  const Approximate& s = scores_[at(map_[at(target_head)])];
  std::int32_t last = 0;
  const std::vector<std::int32_t> expected = chosen(target_head, rows, rule, last);
  if (ids == expected) return Match::exact;
  if (ids.size() != expected.size() || !std::is_sorted(ids.begin(), ids.end())) {
    return Match::wrong;
  }
  std::vector<std::int32_t> differing;
  std::set_symmetric_difference(ids.begin(), ids.end(), expected.begin(), expected.end(),
                                std::back_inserter(differing));
  for (const std::int32_t id : differing) {
    if (id < rule.sinks || id >= length() + rows - rule.recent_window) return Match::wrong;
    const double error = s.error[at(id)] + s.error[at(last)];
    if (std::abs(s.value[at(id)] - s.value[at(last)]) > error) return Match::wrong;
  }
  return Match::near;
}

}  // namespace spectx::test
