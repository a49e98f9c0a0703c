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
  /// One layer, in ascending order; q [1, query_heads, k_dim], k [1, kv_heads, k_dim], `rows` as
  /// append gave them. The batch's item must select. Async.
  void add(const Batch& batch, const TensorView& q, const TensorView& k, KVView rows);
  /// After the last layer: brings everything to the host. Blocks.
  void end_step();

  index_t length() const noexcept { return length_; }
  index_t layers() const noexcept { return shape_.layers; }
  /// [length]
  std::span<const float> of(index_t layer, index_t kv_head) const {
    return part(weights_, layer * shape_.kv_heads + kv_head);
  }
  /// The step's queries [query_heads * k_dim] and keys [kv_heads * k_dim] of a layer.
  const float* queries(index_t layer) const { return qk_.data() + layer * qk_width(); }
  const float* keys(index_t layer) const {
    return queries(layer) + shape_.query_heads * shape_.k_dim;
  }
  /// [length] the sum over layers.
  std::span<const float> sum(index_t kv_head) const { return part(sums_, kv_head); }

 private:
  std::span<const float> part(const std::vector<float>& all, index_t i) const {
    return std::span(all).subspan(static_cast<std::size_t>(i * length_),
                                  static_cast<std::size_t>(length_));
  }
  index_t qk_width() const { return (shape_.query_heads + shape_.kv_heads) * shape_.k_dim; }
  std::vector<float> read_first_keys(const KVView& rows, index_t request);
  void add_layer(index_t layer);
  void add_head(const float* scores, index_t place, float first_product, float log_sum);

  ModelShape shape_;
  index_t max_length_;
  index_t group_;
  Backend& backend_;
  StreamView stream_;
  HostCopy host_;
  // [layers, group, kv_heads, max_length] scores, then [layers, group, kv_heads] log sums, then
  // [layers, qk_width] queries and keys: on the device, and the same on the host.
  Buffer device_;
  Buffer mirror_;
  index_t log_sum_offset_, qk_offset_;  // bytes
  DType qk_dtype_ = DType::f32;
  index_t length_ = 0;
  index_t layer_ = 0;                           // that comes next
  std::vector<std::vector<float>> first_keys_;  // per layer [kv_heads, k_dim] of token 0
  std::vector<float> qk_;                       // [layers, qk_width]
  std::vector<float> weights_;                  // [layers, kv_heads, length]
  std::vector<float> sums_;                     // [kv_heads, length]
};

}  // namespace spectx::eval
