// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "support/tiny_llama.hpp"

namespace spectx::test {

/// The forward pass over a whole text in double precision, one obvious loop after another. It reads
/// q and k as the file has them, so its RoPE turns neighbouring pairs.
class LlamaReference {
 public:
  using Row = std::vector<double>;

  explicit LlamaReference(const TinyLlama& model) : m_(model) {}

  /// [tokens, vocabulary]
  std::vector<Row> logits(const std::vector<std::int32_t>& tokens) const {
    std::vector<Row> stream;
    for (const std::int32_t token : tokens) stream.push_back(embedding(token));
    for (index_t l = 0; l < m_.layers; ++l) layer("blk." + std::to_string(l) + ".", stream);
    const bool is_tied = !m_.tensors.contains("output.weight");
    for (Row& row : stream) {
      row = times(is_tied ? "token_embd.weight" : "output.weight", norm("output_norm.weight", row));
    }
    return stream;
  }

 private:
  Row embedding(std::int32_t token) const {
    const auto& table = m_.values("token_embd.weight");
    const auto first = table.begin() + token * m_.hidden;
    return {first, first + m_.hidden};
  }

  Row times(const std::string& name, const Row& x) const {
    const auto& w = m_.values(name);
    Row out(w.size() / x.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      for (std::size_t j = 0; j < x.size(); ++j) out[i] += w[i * x.size() + j] * x[j];
    }
    return out;
  }

  Row norm(const std::string& name, Row x) const {
    const auto& weight = m_.values(name);
    double squares = 0;
    for (const double v : x) squares += v * v;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + m_.rms_eps);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] *= scale * weight[i];
    return x;
  }

  void rotate(Row& x, std::size_t position) const {
    const auto dim = static_cast<std::size_t>(m_.dim);
    for (std::size_t i = 0; i < x.size(); i += 2) {
      const double power = static_cast<double>(i % dim) / static_cast<double>(dim);
      const double angle = static_cast<double>(position) * std::pow(m_.theta, -power);
      const double a = x[i];
      const double b = x[i + 1];
      x[i] = a * std::cos(angle) - b * std::sin(angle);
      x[i + 1] = a * std::sin(angle) + b * std::cos(angle);
    }
  }

  void layer(const std::string& block, std::vector<Row>& stream) const {
    std::vector<Row> keys;
    std::vector<Row> values;
    for (std::size_t n = 0; n < stream.size(); ++n) {
      Row& x = stream[n];
      const Row normed = norm(block + "attn_norm.weight", x);
      Row q = times(block + "attn_q.weight", normed);
      keys.push_back(times(block + "attn_k.weight", normed));
      values.push_back(times(block + "attn_v.weight", normed));
      rotate(q, n);
      rotate(keys.back(), n);
      add(x, times(block + "attn_output.weight", attend(q, keys, values)));
      add(x, mlp(block, norm(block + "ffn_norm.weight", x)));
    }
  }

  Row attend(const Row& q, const std::vector<Row>& keys, const std::vector<Row>& values) const {
    const auto dim = static_cast<std::size_t>(m_.dim);
    const auto group = static_cast<std::size_t>(m_.query_heads / m_.kv_heads);
    Row out(q.size());
    for (std::size_t head = 0; head < q.size() / dim; ++head) {
      const std::size_t kv = head / group * dim;
      Row weights;
      for (const Row& k : keys) {
        double dot = 0;
        for (std::size_t i = 0; i < dim; ++i) dot += q[head * dim + i] * k[kv + i];
        weights.push_back(dot / std::sqrt(static_cast<double>(dim)));
      }
      const double top = *std::max_element(weights.begin(), weights.end());
      double sum = 0;
      for (double& w : weights) sum += w = std::exp(w - top);
      for (std::size_t n = 0; n < values.size(); ++n) {
        for (std::size_t i = 0; i < dim; ++i) {
          out[head * dim + i] += weights[n] / sum * values[n][kv + i];
        }
      }
    }
    return out;
  }

  Row mlp(const std::string& block, const Row& x) const {
    Row gate = times(block + "ffn_gate.weight", x);
    const Row up = times(block + "ffn_up.weight", x);
    for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
    return times(block + "ffn_down.weight", gate);
  }

  static void add(Row& to, const Row& x) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += x[i];
  }

  const TinyLlama& m_;
};

}  // namespace spectx::test
