// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "eval/host_copy.hpp"
#include "spectx/model_shape.hpp"

namespace spectx::eval {

/// The target's own attention in one decode step: for every layer, KV head and cached token the
/// softmax weight, mean over the head's query heads. The backend's `score` computes the products;
/// it leaves token 0 out, which is put back here.
class AttentionMap {
 public:
  AttentionMap(Backend& backend, const ModelShape& shape, index_t max_length, StreamView stream);

  /// A new text: token 0 has other keys.
  void begin_text() { first_keys_.clear(); }
  /// A step of `length` cached tokens, its own included.
  void begin_step(index_t length);
  /// One layer, in ascending order. q [1, query_heads, k_dim]; `rows` as append gave them. The
  /// batch's item must select. Blocks. Returns the queries on the host [query_heads * k_dim].
  std::span<const float> add(const Batch& batch, const TensorView& q, KVView rows);

  index_t length() const noexcept { return length_; }
  index_t layers() const noexcept { return shape_.layers; }
  /// [length]
  std::span<const float> of(index_t layer, index_t kv_head) const {
    return part(weights_, layer * shape_.kv_heads + kv_head);
  }
  /// [length] the sum over layers.
  std::span<const float> sum(index_t kv_head) const { return part(sums_, kv_head); }

 private:
  std::span<const float> part(const std::vector<float>& all, index_t i) const {
    return std::span(all).subspan(static_cast<std::size_t>(i * length_),
                                  static_cast<std::size_t>(length_));
  }
  std::vector<float> read_first_keys(const KVView& rows, index_t request);
  void add_head(index_t query, index_t kv_head, float first_product, float log_sum);

  ModelShape shape_;
  index_t max_length_;
  index_t group_;
  Backend& backend_;
  StreamView stream_;
  HostCopy host_;
  Buffer memory_;
  TensorView scores_;   // [group, kv_heads, max_length], device
  TensorView log_sum_;  // [group, kv_heads], device
  index_t length_ = 0;
  index_t layer_ = 0;                           // that comes next
  std::vector<std::vector<float>> first_keys_;  // per layer [kv_heads, k_dim] of token 0
  std::vector<float> q_;
  std::vector<float> host_scores_;
  std::vector<float> host_log_sum_;
  std::vector<float> weights_;  // [layers, kv_heads, length]
  std::vector<float> sums_;     // [kv_heads, length]
};

}  // namespace spectx::eval
