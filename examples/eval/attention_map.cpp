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
      log_sum_offset_(shape.layers * shape.query_heads * max_length * 4),
      qk_offset_(log_sum_offset_ + shape.layers * shape.query_heads * 4),
      qk_(static_cast<std::size_t>(shape.layers * qk_width())) {
  const index_t bytes = qk_offset_ + static_cast<index_t>(qk_.size()) * 4;
  device_ = Buffer(backend.memories().device, bytes);
  mirror_ = Buffer(backend.memories().host, bytes);
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

void AttentionMap::add(const Batch& batch, const TensorView& q, const TensorView& k, KVView rows) {
  rows.counts = nullptr;  // all tokens
  const index_t heads = shape_.kv_heads;
  for (index_t g = 0; g < group_; ++g) {
    // Query head g of every group, so that each is a group of its own.
    TensorView one = q;
    one.data = static_cast<std::byte*>(q.data) + g * q.strides[1] * dtype_bytes(q.dtype);
    one.shape[1] = heads;
    one.strides[1] = group_ * q.strides[1];
    const index_t lists = (layer_ * group_ + g) * heads;
    std::byte* const base = device_.data();
    backend_.score(
        {.q = one,
         .keys = rows,
         .batch = &batch,
         .scale = 1 / std::sqrt(static_cast<float>(shape_.k_dim)),
         .log_sum = matrix_view(base + log_sum_offset_ + lists * 4, DType::f32, 1, heads),
         .scores = split_heads(
             matrix_view(base + lists * max_length_ * 4, DType::f32, 1, heads * max_length_), heads,
             max_length_)},
        stream_);
  }
  qk_dtype_ = q.dtype;
  const index_t element = dtype_bytes(q.dtype);
  const index_t q_bytes = shape_.query_heads * shape_.k_dim * element;
  std::byte* const to = device_.data() + qk_offset_ + layer_ * qk_width() * element;
  backend_.copy(to, q.data, q_bytes, stream_);
  backend_.copy(to + q_bytes, k.data, qk_width() * element - q_bytes, stream_);
  if (static_cast<index_t>(first_keys_.size()) == layer_) {
    first_keys_.push_back(read_first_keys(rows, batch.items.front().request.value));
  }
  ++layer_;
}

void AttentionMap::end_step() {
  host_.bytes(mirror_.data(), device_.data(), mirror_.bytes());
  to_floats(mirror_.data() + qk_offset_, qk_dtype_, static_cast<index_t>(qk_.size()), qk_.data());
  for (index_t layer = 0; layer < shape_.layers; ++layer) add_layer(layer);
}

void AttentionMap::add_layer(index_t layer) {
  const std::vector<float>& first = first_keys_[static_cast<std::size_t>(layer)];
  const auto* const scores = reinterpret_cast<const float*>(mirror_.data());
  const auto* const log_sums = reinterpret_cast<const float*>(mirror_.data() + log_sum_offset_);
  const float scale = 1 / std::sqrt(static_cast<float>(shape_.k_dim));
  using Vector = Eigen::Map<const Eigen::VectorXf>;
  for (index_t g = 0; g < group_; ++g) {
    for (index_t h = 0; h < shape_.kv_heads; ++h) {
      const index_t query = h * group_ + g;
      const float product = scale * Vector(queries(layer) + query * shape_.k_dim, shape_.k_dim)
                                        .dot(Vector(first.data() + h * shape_.k_dim, shape_.k_dim));
      const index_t list = (layer * group_ + g) * shape_.kv_heads + h;
      add_head(scores + list * max_length_, layer * shape_.kv_heads + h, product, log_sums[list]);
    }
  }
}

/// @param place          layer and KV head, @param first_product  scaled q.k of token 0
void AttentionMap::add_head(const float* scores, index_t place, float first_product,
                            float log_sum) {
  const float larger = std::max(first_product, log_sum);
  const float total =
      larger + std::log(std::exp(first_product - larger) + std::exp(log_sum - larger));
  const float share = 1 / static_cast<float>(group_);
  using Array = Eigen::Map<Eigen::ArrayXf>;
  const Eigen::Map<const Eigen::ArrayXf> rest(scores + 1, length_ - 1);
  const Eigen::ArrayXf weights = (rest + (log_sum - total)).exp() * share;
  const float first = std::exp(first_product - total) * share;
  for (float* const to :
       {weights_.data() + place * length_, sums_.data() + place % shape_.kv_heads * length_}) {
    to[0] += first;
    Array(to + 1, length_ - 1) += weights;
  }
}

}  // namespace spectx::eval
