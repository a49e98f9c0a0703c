// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"

namespace spectx::cpu {

inline void join_heads(const JoinHeadsArgs& a, Context& context) {
  constexpr index_t kBlockTokens = 1024;
  const index_t heads = a.scores.shape[1];
  for (index_t item = 0; item < num_items(*a.batch); ++item) {
    if (a.batch->selects.data[item] == 0) continue;
    const index_t tokens = index_t{a.batch->position.data[a.batch->row_begin.data[item]]} + 1;
    context.for_each((tokens + kBlockTokens - 1) / kBlockTokens, [&](index_t block, int) {
      const index_t begin = block * kBlockTokens;
      const index_t end = std::min(begin + kBlockTokens, tokens);
      for (index_t n = begin; n < end; ++n) {
        float best = row<const float>(a.scores, item, 0)[n];
        for (index_t h = 1; h < heads; ++h) {
          const float value = row<const float>(a.scores, item, h)[n];
          best = value > best || value != value ? value : best;
        }
        const bool is_finite = best - best == 0;
        if (a.reduce == GroupReduce::mean && is_finite) {
          float total = 0;
          for (index_t h = 0; h < heads; ++h) {
            total += std::exp(row<const float>(a.scores, item, h)[n] - best);
          }
          best += std::log(total / static_cast<float>(heads));
        }
        row<float>(a.scores, item, 0)[n] = best;
      }
    });
  }
}

namespace detail {

/// Mean over KV heads of an item's mean coverage.
inline float mean_coverage(const GuardArgs& a, index_t item) noexcept {
  float sum = 0;
  for (index_t h = 0; h < a.kv_heads; ++h) {
    sum += a.selection.coverage.data[2 * (item * a.kv_heads + h) + 1];
  }
  return sum / static_cast<float>(a.kv_heads);
}

inline void read_everything(const GuardArgs& a, index_t item) noexcept {
  for (index_t i = item * a.kv_heads; i < (item + 1) * a.kv_heads; ++i) {
    a.selection.counts.data[i] = kAllTokens;
    a.selection.coverage.data[2 * i] = a.selection.coverage.data[2 * i + 1] = 1;
  }
}

/// What becomes of an item that is on the ladder.
inline void climb(const GuardArgs& a, index_t item) noexcept {
  const Batch& batch = *a.batch;
  std::int32_t& budget = a.budgets.data[item];
  if (batch.selects.data[item] == 0) {
    budget = 0;
    return;
  }
  const index_t request = batch.request.data[item];
  const float covered = mean_coverage(a, item);
  const float wanted =
      a.rung < a.rungs.data[request] ? a.rule.comfortable_coverage() : a.rule.min_coverage;
  const bool is_enough = covered >= wanted || batch.length.data[item] <= a.rule.rung(a.rung);
  if (!is_enough && a.rung + 1 < a.rule.num_rungs()) {
    budget = static_cast<std::int32_t>(a.rule.rung(a.rung + 1));
    return;
  }
  budget = 0;
  a.rungs.data[request] = static_cast<std::int32_t>(a.rung);
  GuardOutcome& outcome = a.selection.outcomes.data[item];
  if (is_enough) {
    outcome = a.rung == 0 ? GuardOutcome::kept : GuardOutcome::raised;
  } else if (a.rule.may_read_all && a.resident_groups[request] == a.groups) {
    outcome = GuardOutcome::full;
    read_everything(a, item);
  } else {
    outcome = GuardOutcome::limited;
  }
}

}  // namespace detail

inline void guard(const GuardArgs& a) noexcept {
  const Batch& batch = *a.batch;
  for (index_t item = 0; item < num_items(batch); ++item) {
    if (a.rung >= 0) {
      if (a.budgets.data[item] != 0) detail::climb(a, item);
      continue;
    }
    a.budgets.data[item] = static_cast<std::int32_t>(a.rule.budget);
    a.selection.outcomes.data[item] = GuardOutcome::kept;
    if (batch.position.data[batch.row_begin.data[item]] == 0) {
      a.rungs.data[batch.request.data[item]] = 0;
    }
  }
}

}  // namespace spectx::cpu
