// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "approximate.hpp"
#include "spectx/retrieval_head.hpp"

namespace spectx::test {

/// The numbers of a retrieval head, as its device memory holds them.
struct HeadNumbers {
  HeadShape shape;
  index_t hidden = 0, features = 0;  // features: hidden states of a row
  std::vector<float> fc, input_norm, hidden_norm, q_proj, k_proj, embeddings;
  std::vector<float> feature_norm, fc_bias, q_bias, k_bias, q_norm, k_norm;  // empty: none
  index_t normed_width = 0;  // of the hidden states that feature_norm takes together
  Rope rope;
  float norm_eps = 1e-5F;
  GroupReduce reduce = GroupReduce::max;
  DType compute = DType::f32;  // of the activations
};

/// One request of a retrieval head, from its definition alone: the entry of row p is
/// [RMSNorm(embedding of token p), RMSNorm(fc features of row p - 1)], rotated to position p - 1.
class HeadReference {
 public:
  /// `config` with the KV head that serves each.
  HeadReference(const HeadNumbers& numbers, const HeadConfig& config)
      : n_(&numbers),
        reduce_(config.reduce.value_or(numbers.reduce)),
        level_(config.level),
        map_(config.head_of_kv_head),
        rope_(rope_frequencies(numbers.rope, numbers.shape.k_dim)) {}

  index_t length() const { return static_cast<index_t>(tokens_.size()); }
  /// The next row: its token, and the target's hidden states that entered the tapped layers.
  void push(std::int32_t token, const std::vector<float>& features) {
    tokens_.push_back(token);
    const Approximate x{{features.begin(), features.end()},
                        std::vector<double>(features.size(), 0.0)};
    features_.push_back(fused(normalised(x, n_->normed_width, n_->feature_norm)));
    shift(n_->fc_bias, features_.back());
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
      const Approximate q = project_entry({&n_->q_proj, &n_->q_bias, &n_->q_norm}, tokens[lead],
                                          length() - 1, position);
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
  struct Projection {
    const std::vector<float>*weight, *bias, *norm;
  };

  double rounding() const { return rounding_of(n_->compute); }
  /// fc x, whose part of each hidden state is added to what the ones before it gave.
  Approximate fused(const Approximate& x) const {
    Approximate out = project(n_->fc, x);
    const std::size_t width = x.value.size();
    for (std::size_t o = 0; o < out.value.size(); ++o) {
      double magnitude = out.error[o];
      for (std::size_t i = 0; i < width; ++i) {
        magnitude += std::abs(static_cast<double>(n_->fc[o * width + i]) * x.value[i]);
      }
      out.error[o] += rounding() * magnitude * static_cast<double>(n_->features);
    }
    return out;
  }
  Approximate key_of(std::int32_t token, index_t before) const {
    return project_entry({&n_->k_proj, &n_->k_bias, &n_->k_norm}, token, before, before);
  }
  /// Every `part` numbers of x normalised; x itself without weights, which repeat.
  Approximate normalised(const Approximate& x, index_t part, const std::vector<float>& w) const {
    if (w.empty()) return x;
    Approximate out;
    for (std::size_t i = 0; i < x.value.size(); i += at(part)) {
      const auto from = [&](const auto& v, std::size_t begin) {
        const auto first = v.begin() + static_cast<std::ptrdiff_t>(begin);
        return std::vector(first, first + static_cast<std::ptrdiff_t>(part));
      };
      normalise({from(x.value, i), from(x.error, i)}, from(w, i % w.size()), n_->norm_eps, out);
    }
    store(rounding(), out);
    return out;
  }
  void shift(const std::vector<float>& bias, Approximate& x) const {
    if (bias.empty()) return;
    for (std::size_t i = 0; i < bias.size(); ++i) {
      x.value[i] += static_cast<double>(bias[i]);
      x.error[i] += kSumSlack * kEpsilon * std::abs(x.value[i]);
    }
    store(rounding(), x);
  }
  /// w entry(token, feature of row `before`), rotated to `position`
  Approximate project_entry(const Projection& by, std::int32_t token, index_t before,
                            index_t position) const {
    Approximate embedding, entry;
    for (index_t i = 0; i < n_->hidden; ++i) {
      embedding.add(static_cast<double>(n_->embeddings[at(token * n_->hidden + i)]), 0);
    }
    normalise(embedding, n_->input_norm, n_->norm_eps, entry);
    normalise(features_[at(before)], n_->hidden_norm, n_->norm_eps, entry);
    store(rounding(), entry);
    Approximate out = project(*by.weight, entry);
    store(rounding(), out);
    shift(*by.bias, out);
    out = normalised(out, n_->shape.k_dim, *by.norm);
    rotate(rope_, static_cast<double>(position), n_->shape.k_dim, out);
    store(rounding(), out);
    return out;
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
  GroupReduce reduce_;
  SelectionLevel level_;
  std::vector<std::int32_t> map_;  // [target kv_heads]
  RopeFrequencies rope_;
  std::vector<std::int32_t> tokens_;
  std::vector<Approximate> features_, keys_;  // [rows]
  std::vector<Approximate> scores_;           // [kv_heads] of the last score()
  std::vector<std::vector<Approximate>> weights_;
};

}  // namespace spectx::test

#include "head_reference_choice.hpp"
