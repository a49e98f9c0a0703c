// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "reference.hpp"

namespace spectx::test {

/// Log weights of the tokens of one KV head, as ScoreArgs says, and what a float may be off.
struct ScoreReference {
  std::vector<Bound> scores;                // [tokens], token 0 -infinity
  std::vector<std::vector<Bound>> log_sum;  // [leads][group]

  /// queries [leads][group], keys [tokens]
  ScoreReference(const std::vector<std::vector<std::vector<float>>>& queries,
                 const std::vector<std::vector<float>>& keys, double scale, GroupReduce reduce) {
    constexpr double kNone = -std::numeric_limits<double>::infinity();
    scores.assign(keys.size(), {kNone, 0});
    for (const auto& group : queries) {
      std::vector<std::vector<Bound>> weights;
      log_sum.emplace_back();
      for (const std::vector<float>& q : group) {
        weights.push_back(products(q, keys, scale));
        log_sum.back().push_back(log_sum_exp(weights.back()));
      }
      for (std::size_t n = 1; n < keys.size(); ++n) {
        const Bound lead = reduced(weights, log_sum.back(), n, reduce);
        const double allowed = std::max(scores[n].allowed, lead.allowed);
        scores[n] = {std::max(scores[n].expected, lead.expected), allowed};
      }
    }
  }

 private:
  static std::vector<Bound> products(const std::vector<float>& q,
                                     const std::vector<std::vector<float>>& keys, double scale) {
    std::vector<Bound> all;
    for (const std::vector<float>& key : keys) {
      const Dot s = dot(q.data(), key.data(), static_cast<index_t>(key.size()));
      all.push_back({s.value * scale, kSumSlack * kEpsilon * s.magnitude * scale});
    }
    return all;
  }
  /// Of tokens 1 and later; off by no more than the worst product and its own float result.
  static Bound log_sum_exp(const std::vector<Bound>& products) {
    double largest = -std::numeric_limits<double>::infinity();
    double allowed = 0;
    for (std::size_t n = 1; n < products.size(); ++n) {
      largest = std::max(largest, products[n].expected);
      allowed = std::max(allowed, products[n].allowed);
    }
    double sum = 0;
    for (std::size_t n = 1; n < products.size(); ++n) {
      sum += std::exp(products[n].expected - largest);
    }
    const double value = largest + std::log(sum);
    return {value, allowed + kSumSlack * kEpsilon * (1 + std::abs(value))};
  }
  static Bound reduced(const std::vector<std::vector<Bound>>& weights,
                       const std::vector<Bound>& log_sums, std::size_t n, GroupReduce reduce) {
    double largest = -std::numeric_limits<double>::infinity();
    double total = 0;
    double allowed = 0;
    for (std::size_t g = 0; g < weights.size(); ++g) {
      const double value = weights[g][n].expected - log_sums[g].expected;
      largest = std::max(largest, value);
      total += std::exp(value);
      allowed = std::max(allowed, weights[g][n].allowed + log_sums[g].allowed +
                                      kSumSlack * kEpsilon * (1 + std::abs(value)));
    }
    const double mean = std::log(total / static_cast<double>(weights.size()));
    return {reduce == GroupReduce::max ? largest : mean, allowed};
  }
};

/// Ids by the definition: sinks, the best of the middle, the window; a sort of everything.
inline std::vector<std::int32_t> top_k_reference(const std::vector<float>& scores, index_t length,
                                                 const SelectionConfig& rule) {
  std::vector<std::int32_t> ids;
  if (length <= rule.budget) {
    for (index_t i = 0; i < length; ++i) ids.push_back(static_cast<std::int32_t>(i));
    return ids;
  }
  std::vector<std::int32_t> middle;
  for (index_t i = rule.sinks; i < length - rule.recent_window; ++i) {
    middle.push_back(static_cast<std::int32_t>(i));
  }
  const auto is_better = [&](std::int32_t a, std::int32_t b) {
    const float x = scores[at(a)];
    const float y = scores[at(b)];
    if (std::isnan(x) || std::isnan(y)) return !std::isnan(x);
    return x > y;
  };
  std::stable_sort(middle.begin(), middle.end(), [&](std::int32_t a, std::int32_t b) {
    const bool both_nan = std::isnan(scores[at(a)]) && std::isnan(scores[at(b)]);
    return !both_nan && is_better(a, b);
  });
  middle.resize(at(rule.budget - rule.sinks - rule.recent_window));
  std::sort(middle.begin(), middle.end());
  for (index_t i = 0; i < rule.sinks; ++i) ids.push_back(static_cast<std::int32_t>(i));
  ids.insert(ids.end(), middle.begin(), middle.end());
  for (index_t i = length - rule.recent_window; i < length; ++i) {
    ids.push_back(static_cast<std::int32_t>(i));
  }
  return ids;
}

}  // namespace spectx::test
