// SPDX-License-Identifier: Apache-2.0
#pragma once

// How HeadLoop compares a selection with its references; include head_loop.hpp.
#include "head_loop.hpp"

namespace spectx::test {

/// The rule as it was for the item: with the budget of the rung that the guard chose.
inline SelectionConfig HeadLoop::compare_rung(const ScheduledItem& item, std::size_t i) {
  SelectionConfig rule = pool.plan().selection;
  if (!rule.has_guard()) return rule;
  const HeadReference& reference = references.at(item.request.value);
  const index_t heads = pool.shape().kv_heads;
  const index_t length = item.first + item.rows;
  const GuardOutcome outcome = selected_.outcomes[i];
  const index_t count = selected_.counts[i * at(heads)];
  std::vector<Bound> covered;
  index_t rung = -1;
  for (index_t r = 0; r < rule.num_rungs(); ++r) {
    SelectionConfig of_rung = rule;
    of_rung.budget = rule.rung(r);
    Bound mean{0, 0};
    for (index_t h = 0; h < heads; ++h) {
      std::int32_t last = 0;
      const auto [_, m] = reference.coverage(reference.chosen(h, item.rows, of_rung, last), h);
      mean.expected += m.expected / static_cast<double>(heads);
      mean.allowed += m.allowed / static_cast<double>(heads);
    }
    covered.push_back(mean);
    const bool is_it = count == std::min(length, of_rung.budget) || r + 1 == rule.num_rungs();
    if (rung < 0 && is_it) rung = r;
  }
  ++outcomes[static_cast<std::size_t>(outcome)];
  if (!guards[item.request.value].is_right(rule, length, true, outcome, rung, covered)) {
    wrong.push_back("length " + std::to_string(item.first) + ": rung " + std::to_string(rung));
  }
  rule.budget = rule.rung(rung);
  return rule;
}

inline void HeadLoop::compare(const Batch& batch, std::size_t i, const BatchItem& asked) {
  const ScheduledItem& item = batch.items[i];
  HeadReference& reference = references.at(item.request.value);
  if (item.selects) reference.score({asked.tokens.begin(), asked.tokens.end()});
  const SelectionConfig rule = item.selects ? compare_rung(item, i) : SelectionConfig{};
  for (index_t h = 0; h < pool.shape().kv_heads && batch.needs_selection; ++h) {
    const index_t place = static_cast<index_t>(i) * pool.shape().kv_heads + h;
    const std::int32_t count = selected_.counts[at(place)];
    const bool is_measured = !selected_.coverage.empty();
    std::array coverage = {1.0F, 1.0F};
    if (is_measured) std::copy_n(selected_.coverage.begin() + 2 * place, 2, coverage.begin());
    if (is_measured != config_.measures_coverage && !rule.has_guard()) wrong.push_back("measured");
    const std::string where =
        "length " + std::to_string(item.first) + ", KV head " + std::to_string(h);
    if (!item.selects) {
      if (count != kAllTokens) wrong.push_back(where + ": selects");
      continue;
    }
    if (count == kAllTokens) {
      const bool is_full =
          !selected_.outcomes.empty() && selected_.outcomes[i] == GuardOutcome::full;
      if (!is_full || coverage != std::array{1.0F, 1.0F}) wrong.push_back(where + ": reads all");
      continue;
    }
    const std::vector<std::int32_t>& ids = selected_.ids[at(place)];
    const auto match = reference.match(ids, h, item.rows, rule);
    ++(match == HeadReference::Match::near ? near : exact);
    if (match == HeadReference::Match::wrong) wrong.push_back(where + ": ids");
    if (!is_measured) continue;
    const auto [least, mean] = reference.coverage(ids, h);
    const std::string off = outside({coverage[0], coverage[1]}, {least, mean});
    if (!off.empty()) wrong.push_back(where + ": coverage, " + off);
  }
}

}  // namespace spectx::test
