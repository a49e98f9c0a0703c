// SPDX-License-Identifier: Apache-2.0
#include "eval/attention_map.hpp"

#include <Eigen/Core>
#include <cmath>

namespace spectx::eval {

AttentionMap::AttentionMap(Backend& backend, const ModelShape& shape, index_t max_length,
                           StreamView stream)
    : shape_(shape),
      max_length_(max_length),
      group_(shape.group_size()),
      backend_(backend),
      stream_(stream),
      host_(backend, stream),
      memory_(backend.memories().device, shape.query_heads * (max_length + 1) * 4) {
  scores_ =
      split_heads(matrix_view(memory_.data(), DType::f32, group_, shape.kv_heads * max_length),
                  shape.kv_heads, max_length);
  log_sum_ = matrix_view(memory_.data() + shape.query_heads * max_length * 4, DType::f32, group_,
                         shape.kv_heads);
  q_.resize(static_cast<std::size_t>(shape.query_heads * shape.k_dim));
  host_scores_.resize(static_cast<std::size_t>(shape.query_heads * max_length));
  host_log_sum_.resize(static_cast<std::size_t>(shape.query_heads));
}

void AttentionMap::begin_step(index_t length) {
  length_ = length;
  layer_ = 0;
  weights_.assign(static_cast<std::size_t>(shape_.layers * shape_.kv_heads * length), 0);
  sums_.assign(static_cast<std::size_t>(shape_.kv_heads * length), 0);
}

std::vector<float> AttentionMap::read_first_keys(const KVView& rows, index_t request) {
  std::byte* page = nullptr;
  host_.bytes(&page, rows.pages_of(request, false), sizeof(page));
  std::vector<float> keys(static_cast<std::size_t>(shape_.kv_heads * shape_.k_dim));
  for (index_t h = 0; h < shape_.kv_heads; ++h) {
    host_.floats(keys.data() + h * shape_.k_dim,
                 page + rows.offset_of(false) + h * rows.head_stride, rows.dtype, shape_.k_dim);
  }
  return keys;
}

std::span<const float> AttentionMap::add(const Batch& batch, const TensorView& q, KVView rows) {
  rows.counts = nullptr;  // all tokens
  const float scale = 1 / std::sqrt(static_cast<float>(shape_.k_dim));
  for (index_t g = 0; g < group_; ++g) {
    // Query head g of every group, so that each is a group of its own.
    TensorView one = q;
    one.data = static_cast<std::byte*>(q.data) + g * q.strides[1] * dtype_bytes(q.dtype);
    one.shape[1] = shape_.kv_heads;
    one.strides[1] = group_ * q.strides[1];
    backend_.score({.q = one,
                    .keys = rows,
                    .batch = &batch,
                    .scale = scale,
                    .log_sum = spectx::rows(log_sum_, g, 1),
                    .scores = spectx::rows(scores_, g, 1)},
                   stream_);
  }
  if (static_cast<index_t>(first_keys_.size()) == layer_) {
    first_keys_.push_back(read_first_keys(rows, batch.items.front().request.value));
  }
  host_.floats(q_.data(), q.data, q.dtype, static_cast<index_t>(q_.size()));
  host_.bytes(host_scores_.data(), scores_.data, static_cast<index_t>(host_scores_.size()) * 4);
  host_.bytes(host_log_sum_.data(), log_sum_.data, static_cast<index_t>(host_log_sum_.size()) * 4);
  const std::vector<float>& first = first_keys_[static_cast<std::size_t>(layer_)];
  using Vector = Eigen::Map<const Eigen::VectorXf>;
  for (index_t g = 0; g < group_; ++g) {
    for (index_t h = 0; h < shape_.kv_heads; ++h) {
      const float product =
          scale * Vector(q_.data() + (h * group_ + g) * shape_.k_dim, shape_.k_dim)
                      .dot(Vector(first.data() + h * shape_.k_dim, shape_.k_dim));
      const index_t at = g * shape_.kv_heads + h;
      add_head(at, h, product, host_log_sum_[static_cast<std::size_t>(at)]);
    }
  }
  ++layer_;
  return q_;
}

/// @param query  its place in host_scores_, @param first_product  scaled q.k of token 0
void AttentionMap::add_head(index_t query, index_t kv_head, float first_product, float log_sum) {
  const float larger = std::max(first_product, log_sum);
  const float total =
      larger + std::log(std::exp(first_product - larger) + std::exp(log_sum - larger));
  const float share = 1 / static_cast<float>(group_);
  using Array = Eigen::Map<Eigen::ArrayXf>;
  using ConstArray = Eigen::Map<const Eigen::ArrayXf>;
  const ConstArray scores(host_scores_.data() + query * max_length_ + 1, length_ - 1);
  float* const to = weights_.data() + (layer_ * shape_.kv_heads + kv_head) * length_;
  const Eigen::ArrayXf weights = (scores + (log_sum - total)).exp() * share;
  const float first = std::exp(first_product - total) * share;
  Array(to + 1, length_ - 1) += weights;
  to[0] += first;
  float* const sum = sums_.data() + kv_head * length_;
  Array(sum + 1, length_ - 1) += weights;
  sum[0] += first;
}

}  // namespace spectx::eval
