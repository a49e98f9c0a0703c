// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <numeric>

#include "spectx/backend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/rows.hpp"

namespace spectx::cpu {

namespace detail {

/// Bits that order like the scores: -0 equals 0, and NaN, the lowest, is 0.
inline std::uint32_t order_of(float score) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(score + 0.0F);
  const std::uint32_t ordered = bits ^ ((bits >> 31) != 0 ? 0xffffffffU : 0x80000000U);
  return (bits & 0x7fffffffU) > 0x7f800000U ? 0 : ordered;
}

/// The k-th largest of `orders`, k in [1, count]; `ties`: how many equal to it belong to the k
/// largest. A radix select: counts by the leading bits, then among those that share them.
inline std::uint32_t kth_largest(const std::uint32_t* orders, index_t count, index_t k,
                                 index_t& ties) noexcept {
  constexpr int kDigitBits = 8;
  std::uint32_t prefix = 0;
  std::uint32_t mask = 0;
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    std::array<index_t, 1 << kDigitBits> counts{};
    for (index_t i = 0; i < count; ++i) {
      if ((orders[i] & mask) == prefix) ++counts[(orders[i] >> shift) & 0xffU];
    }
    std::uint32_t digit = 0xff;
    for (; counts[digit] < k; --digit) k -= counts[digit];
    prefix |= digit << shift;
    mask |= 0xffU << shift;
  }
  ties = k;
  return prefix;
}

/// `budget` ids of one item and KV head, ascending; true if a score that counts is NaN.
inline bool select_ids(const float* scores, index_t length, const SelectionConfig& rule,
                       index_t budget, std::uint32_t* orders, std::int32_t* ids) noexcept {
  const index_t end = length - rule.recent_window;
  const index_t count = end - rule.sinks;
  bool has_nan = false;
  for (index_t i = 0; i < count; ++i) {
    orders[i] = order_of(scores[rule.sinks + i]);
    has_nan |= orders[i] == 0;
  }
  index_t ties = 0;
  const std::uint32_t lowest =
      kth_largest(orders, count, budget - rule.sinks - rule.recent_window, ties);
  std::iota(ids, ids + rule.sinks, 0);
  std::int32_t* to = ids + rule.sinks;
  for (index_t i = 0; i < count; ++i) {
    const bool is_tie = orders[i] == lowest && ties > 0;
    ties -= is_tie ? 1 : 0;
    if (orders[i] > lowest || is_tie) *to++ = static_cast<std::int32_t>(rule.sinks + i);
  }
  std::iota(to, to + rule.recent_window, static_cast<std::int32_t>(end));
  return has_nan;
}

}  // namespace detail

inline void top_k(const TopKArgs& a, Context& context) {
  const Batch& batch = *a.batch;
  const SelectionConfig& rule = a.rule;
  const index_t kv_heads = num_kv_heads(a.head_of_kv_head, a.scores.shape[1]);
  std::atomic<bool> saw_nan = false;
  context.for_each(num_items(batch) * kv_heads, [&](index_t task, int thread) {
    const index_t item = task / kv_heads;
    const index_t length = batch.length.data[item];
    const index_t budget = a.budgets.size == 0 ? rule.budget : a.budgets.data[item];
    if (budget == 0) return;
    std::int32_t& count = a.out.counts.data[task];
    std::int32_t* const ids = a.out.ids.data + task * a.out.max_budget;
    if (batch.selects.data[item] == 0) {
      count = kAllTokens;
    } else if (length <= budget) {
      count = static_cast<std::int32_t>(length);
      std::iota(ids, ids + length, 0);
    } else {
      count = static_cast<std::int32_t>(budget);
      Carver carver(context.of_thread(thread).reserve(padded<float>(length) * 4));
      const float* const scores =
          row<const float>(a.scores, item, serving_head(a.head_of_kv_head, task % kv_heads));
      if (detail::select_ids(scores, length, rule, budget, carver.take<std::uint32_t>(length),
                             ids)) {
        saw_nan.store(true, std::memory_order_relaxed);
      }
    }
  });
  if (saw_nan && a.saw_nan != nullptr) *a.saw_nan = 1;
}

}  // namespace spectx::cpu
