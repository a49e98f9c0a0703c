// SPDX-License-Identifier: Apache-2.0
#pragma once

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

/// What a retrieval head makes of a row, from its definition alone: features, queries and keys,
/// with what rounding may do to them.
class HeadEntries {
 public:
  explicit HeadEntries(const HeadNumbers& numbers)
      : n_(&numbers), rope_(rope_frequencies(numbers.rope, numbers.shape.k_dim)) {}

  /// Of a row whose hidden states entered the tapped layers.
  Approximate feature(const std::vector<float>& hidden) const {
    const Approximate x{{hidden.begin(), hidden.end()}, std::vector<double>(hidden.size(), 0.0)};
    Approximate out = fused(normalised(x, n_->normed_width, n_->feature_norm));
    shift(n_->fc_bias, out);
    return out;
  }
  /// [query_heads * k_dim] of `token` and the feature of the row before it
  Approximate query(std::int32_t token, const Approximate& feature, index_t position) const {
    return projected({&n_->q_proj, &n_->q_bias, &n_->q_norm}, token, feature, position);
  }
  /// [kv_heads * k_dim] likewise
  Approximate key(std::int32_t token, const Approximate& feature, index_t position) const {
    return projected({&n_->k_proj, &n_->k_bias, &n_->k_norm}, token, feature, position);
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
  /// w entry(token, feature), rotated to `position`
  Approximate projected(const Projection& by, std::int32_t token, const Approximate& feature,
                        index_t position) const {
    Approximate embedding, entry;
    for (index_t i = 0; i < n_->hidden; ++i) {
      embedding.add(static_cast<double>(n_->embeddings[at(token * n_->hidden + i)]), 0);
    }
    normalise(embedding, n_->input_norm, n_->norm_eps, entry);
    normalise(feature, n_->hidden_norm, n_->norm_eps, entry);
    store(rounding(), entry);
    Approximate out = project(*by.weight, entry);
    store(rounding(), out);
    shift(*by.bias, out);
    out = normalised(out, n_->shape.k_dim, *by.norm);
    rotate(rope_, static_cast<double>(position), n_->shape.k_dim, out);
    store(rounding(), out);
    return out;
  }

  const HeadNumbers* n_;
  RopeFrequencies rope_;
};

}  // namespace spectx::test
