// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "head_entries.hpp"

namespace spectx::test {

/// One request of a retrieval head, from its definition alone: the entry of row p is
/// [RMSNorm(embedding of token p), RMSNorm(fc features of row p - 1)], rotated to position p - 1.
class HeadReference {
 public:
  /// `config` with the KV head that serves each.
  HeadReference(const HeadNumbers& numbers, const HeadConfig& config)
      : n_(&numbers),
        entries_(numbers),
        reduce_(config.reduce.value_or(numbers.reduce)),
        level_(config.level),
        map_(config.head_of_kv_head) {}

  index_t length() const { return static_cast<index_t>(tokens_.size()); }
  /// The next row: its token, and the target's hidden states that entered the tapped layers.
  void push(std::int32_t token, const std::vector<float>& features) {
    tokens_.push_back(token);
    features_.push_back(entries_.feature(features));
    keys_.push_back(length() == 1 ? Approximate{} : key_of(token, length() - 2));
  }
  void rewind(index_t length) {
    tokens_.resize(at(length));
    features_.resize(at(length));
    keys_.resize(at(length));
  }
  std::int32_t token(index_t p) const { return tokens_[at(p)]; }
  /// [kv_heads * k_dim] of row p > 0
  const Approximate& key(index_t p) const { return keys_[at(p)]; }

  /// What `tokens`, the rows of one item at length(), choose among rows 1 .. length(): log weights
  /// per KV head, reduced; and the softmax weight of every lead and query head on every row.
  void score(const std::vector<std::int32_t>& tokens) {
    const index_t group = n_->shape.query_heads / n_->shape.kv_heads;
    scores_.assign(at(n_->shape.kv_heads), {});
    weights_.assign(at(n_->shape.kv_heads), {});
    keys_.push_back(key_of(tokens[0], length() - 1));
    for (std::size_t lead = 0; lead < tokens.size(); ++lead) {
      const index_t position = length() - 1 + static_cast<index_t>(lead);
      const Approximate q = entries_.query(tokens[lead], features_.back(), position);
      for (index_t h = 0; h < n_->shape.kv_heads; ++h) {
        std::vector<Approximate> logs;
        for (index_t g = 0; g < group; ++g) logs.push_back(log_weights(q, h * group + g, h));
        raise(scores_[at(h)], reduced(logs, reduce_), lead == 0);
        weights_[at(h)].insert(weights_[at(h)].end(), logs.begin(), logs.end());
      }
    }
    keys_.pop_back();
    if (level_ == SelectionLevel::batch) {
      scores_.assign(scores_.size(), reduced(scores_, reduce_));
    }
  }

  /// What the rule chooses for a KV head of the target, `rows` rows being new; `last`: the last
  /// chosen of the middle.
  std::vector<std::int32_t> chosen(index_t target_head, index_t rows, const SelectionConfig& rule,
                                   std::int32_t& last) const;
  enum class Match { exact, near, wrong };
  /// Whether `ids` are what the rule chooses; near: but for rows whose scores are too close to the
  /// last chosen one's to tell.
  Match match(const std::vector<std::int32_t>& ids, index_t target_head, index_t rows,
              const SelectionConfig& rule) const;
  /// Softmax mass of `ids`: least and mean over the leads' query heads that a head serves.
  std::pair<Bound, Bound> coverage(const std::vector<std::int32_t>& ids,
                                   index_t target_head) const {
    const auto& heads = weights_[at(map_[at(target_head)])];
    Bound least{1, 0};
    Bound mean{0, 0};
    for (const Approximate& logs : heads) {
      Bound mass{0, 0};
      for (const std::int32_t id : ids) {
        if (id < 1 || id > length()) continue;
        const double weight = std::exp(logs.value[at(id)]);
        mass.expected += weight;
        mass.allowed += weight * (std::expm1(logs.error[at(id)]) + kSumSlack * kEpsilon);
      }
      if (mass.expected < least.expected) least.expected = mass.expected;
      least.allowed = std::max(least.allowed, mass.allowed);
      mean.expected += mass.expected / static_cast<double>(heads.size());
      mean.allowed += mass.allowed / static_cast<double>(heads.size());
    }
    return {least, mean};
  }

 private:
  Approximate key_of(std::int32_t token, index_t before) const {
    return entries_.key(token, features_[at(before)], before);
  }
  /// Over rows 1 .. length(), by row; row 0: -infinity.
  Approximate log_weights(const Approximate& q, index_t query_head, index_t head) const {
    const index_t dim = n_->shape.k_dim;
    const double scale = 1 / std::sqrt(static_cast<double>(dim));
    Approximate out;
    out.add(-std::numeric_limits<double>::infinity(), 0);
    double sum = 0;
    double worst = 0;
    for (index_t p = 1; p <= length(); ++p) {
      const double* const k = keys_[at(p)].value.data() + head * dim;
      const double* const k_error = keys_[at(p)].error.data() + head * dim;
      const Dot s = dot(q.value.data() + query_head * dim, k, dim);
      const double error = dot(q.value.data() + query_head * dim, k_error, dim).magnitude +
                           dot(q.error.data() + query_head * dim, k, dim).magnitude +
                           kSumSlack * kEpsilon * s.magnitude;
      out.add(s.value * scale, error * scale);
      sum += std::exp(s.value * scale);
      worst = std::max(worst, error * scale);
    }
    for (std::size_t p = 1; p < out.value.size(); ++p) {
      out.value[p] -= std::log(sum);
      out.error[p] += worst + kSumSlack * kEpsilon * (1 + std::abs(out.value[p]));
    }
    return out;
  }

  const HeadNumbers* n_;
  HeadEntries entries_;
  GroupReduce reduce_;
  SelectionLevel level_;
  std::vector<std::int32_t> map_;  // [target kv_heads]
  std::vector<std::int32_t> tokens_;
  std::vector<Approximate> features_, keys_;  // [rows]
  std::vector<Approximate> scores_;           // [kv_heads] of the last score()
  std::vector<std::vector<Approximate>> weights_;
};

}  // namespace spectx::test

#include "head_reference_choice.hpp"
