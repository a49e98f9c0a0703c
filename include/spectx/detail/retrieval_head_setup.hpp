// SPDX-License-Identifier: Apache-2.0
#pragma once

// The construction of RetrievalHead; include spectx/retrieval_head.hpp.
#include <string>

#include "spectx/retrieval_head.hpp"

namespace spectx {

inline RetrievalHead::RetrievalHead(Backend& backend, KVPool& pool, const HeadWeights& weights,
                                    const HeadConfig& config, Memories memories)
    : backend_(backend),
      pool_(pool),
      weights_(weights),
      config_(config),
      rule_(pool.plan().selection),
      layout_(pool.shape(), pool.plan(), weights.shape,
              backend.compute_dtype(weights.q_proj.dtype)),
      compute_(backend.compute_dtype(weights.q_proj.dtype)),
      kept_(static_cast<std::size_t>(pool.plan().max_requests)) {
  check_weights();
  memory_ = Buffer(memories.device, layout_.bytes());
  host_memory_ = Buffer(memories.host, sizeof(std::int32_t));
  *reinterpret_cast<std::int32_t*>(host_memory_.data()) = 0;
  carve();
  set_rule(rule_);
  const Stream stream = backend.make_stream();
  upload_constants(stream);
  backend.synchronize(stream);
}

namespace detail {

/// Throws unless a weight is [rows, cols], or [rows] for cols 0, of a type that can be read.
inline void check_weight(const char* name, const TensorView& t, index_t rows, index_t cols) {
  const std::size_t last = cols == 0 ? 0 : 1;
  const bool fits = t.data != nullptr && t.rank == (cols == 0 ? 1 : 2) && t.shape[0] == rows &&
                    (cols == 0 || t.shape[1] == cols);
  if (fits && t.strides[last] != 1) {
    throw InvalidArgument(std::string("RetrievalHead: ") + name + " must be dense in its rows");
  }
  if (fits && t.dtype != DType::f32 && t.dtype != DType::f16 && t.dtype != DType::bf16) {
    throw InvalidArgument(std::string("RetrievalHead: ") + name + " must be f32, f16 or bf16");
  }
  if (fits) return;
  throw InvalidArgument(std::string("RetrievalHead: ") + name + " must be [" +
                        std::to_string(rows) + (cols == 0 ? "" : ", " + std::to_string(cols)) +
                        "], is [" + std::to_string(t.shape[0]) +
                        (t.rank < 2 ? "" : ", " + std::to_string(t.shape[1])) + "]");
}

}  // namespace detail

inline void RetrievalHead::check_weights() const {
  const ModelShape& target = pool_.shape();
  const HeadShape& head = weights_.shape;
  const auto features = static_cast<index_t>(weights_.feature_layers.size());
  expects(head.kv_heads == pool_.plan().head_kv_heads && head.k_dim == pool_.plan().head_k_dim,
          "RetrievalHead: the pool was planned for a head of another shape");
  expects(head.kv_heads > 0, "RetrievalHead: the pool was planned without a head");
  expects(head.query_heads > 0 && head.query_heads % head.kv_heads == 0,
          "RetrievalHead: query_heads must be a positive multiple of kv_heads");
  expects(features > 0, "RetrievalHead: feature_layers is empty");
  for (const index_t layer : weights_.feature_layers) {
    expects(layer >= 0 && layer < target.layers,
            "RetrievalHead: a feature layer is not a layer of the target");
  }
  expects(std::is_sorted(weights_.feature_layers.begin(), weights_.feature_layers.end()),
          "RetrievalHead: feature_layers must ascend");
  const index_t width = head.width(target);
  detail::check_weight("fc", weights_.fc, width, features * target.hidden);
  detail::check_weight("input_norm", weights_.input_norm, width, 0);
  detail::check_weight("hidden_norm", weights_.hidden_norm, width, 0);
  detail::check_weight("q_proj", weights_.q_proj, head.query_heads * head.k_dim, 2 * width);
  detail::check_weight("k_proj", weights_.k_proj, head.kv_heads * head.k_dim, 2 * width);
  detail::check_weight("embeddings", weights_.embeddings, target.vocabulary, width);
  check_optional_weights();
  expects(config_.head_of_kv_head.empty() ||
              static_cast<index_t>(config_.head_of_kv_head.size()) == target.kv_heads,
          "RetrievalHead: head_of_kv_head must have one entry per KV head of the target");
  for (const std::int32_t h : config_.head_of_kv_head) {
    expects(h >= 0 && h < head.kv_heads, "RetrievalHead: head_of_kv_head names no head");
  }
}

inline void RetrievalHead::check_optional_weights() const {
  const HeadWeights& w = weights_;
  const HeadShape& head = w.shape;
  const auto features = static_cast<index_t>(w.feature_layers.size());
  const auto check = [](const char* name, const TensorView& t, index_t size) {
    if (t) detail::check_weight(name, t, size, 0);
  };
  check("feature_norm", w.feature_norm, features * pool_.shape().hidden);
  check("fc_bias", w.fc_bias, head.width(pool_.shape()));
  check("q_bias", w.q_bias, head.query_heads * head.k_dim);
  check("k_bias", w.k_bias, head.kv_heads * head.k_dim);
  check("q_norm", w.q_norm, head.k_dim);
  check("k_norm", w.k_norm, head.k_dim);
  const index_t normed = head.normed_features;
  expects(w.feature_norm ? normed == 1 || normed == features : normed == 0,
          "RetrievalHead: normed_features must be 1 or all with a feature_norm, 0 without");
  for (const TensorView& bias : {w.fc_bias, w.q_bias, w.k_bias}) {
    expects(!bias || bias.dtype == compute_, "RetrievalHead: a bias must be of the compute dtype");
  }
  expects(w.rope_divisors.empty() || static_cast<index_t>(w.rope_divisors.size()) == head.k_dim / 2,
          "RetrievalHead: rope_divisors must have k_dim / 2 entries");
}

inline void RetrievalHead::carve() {
  const PoolPlan& plan = pool_.plan();
  const HeadShape& head = weights_.shape;
  const index_t hidden = pool_.shape().hidden;
  const index_t width = head.width(pool_.shape());
  detail::Carver carver(memory_.data());
  const auto matrix = [&](index_t bytes, index_t rows, index_t cols, DType dtype) {
    return matrix_view(carver.take<std::byte>(bytes), dtype, rows, cols);
  };
  features_ =
      matrix(layout_.feature_bytes, plan.max_step_rows, head.normed_features * hidden, compute_);
  fused_ = matrix(layout_.fused_bytes, plan.max_step_rows, width, compute_);
  ring_ = split_heads(
      matrix(layout_.ring_bytes, plan.max_requests, HeadLayout::kRingRows * width, compute_),
      HeadLayout::kRingRows, width);
  input_ = matrix(layout_.input_bytes, plan.max_step_rows, 2 * width, compute_);
  queries_ =
      matrix(layout_.query_bytes, plan.max_step_rows, head.query_heads * head.k_dim, compute_);
  keys_ = matrix(layout_.key_bytes, plan.max_step_rows, head.kv_heads * head.k_dim, compute_);
  log_sum_ = matrix(layout_.log_sum_bytes, plan.max_step_rows, head.query_heads, DType::f32);
  scores_ = split_heads(
      matrix(layout_.score_bytes, plan.max_requests, head.kv_heads * plan.max_length, DType::f32),
      head.kv_heads, plan.max_length);
  const index_t target_heads = plan.max_requests * pool_.shape().kv_heads;
  selection_.max_budget = plan.selection.largest_budget();
  selection_.ids = {carver.take<std::int32_t>(layout_.ids_bytes),
                    target_heads * selection_.max_budget};
  selection_.counts = {carver.take<std::int32_t>(layout_.count_bytes), target_heads};
  selection_.coverage = {carver.take<float>(layout_.coverage_bytes), 2 * target_heads};
  budgets_ = {carver.take<std::int32_t>(layout_.guard_bytes), plan.max_requests};
  rungs_ = {carver.take<std::int32_t>(layout_.guard_bytes), plan.max_requests};
  outcomes_ = carver.take<GuardOutcome>(layout_.guard_bytes);
  frequency_ = {carver.take<float>(PoolLayout::aligned(head.k_dim / 2 * 4)), head.k_dim / 2};
  for (Array<std::int32_t>* map : {&head_of_kv_head_, &scores_of_kv_head_}) {
    *map = {carver.take<std::int32_t>(PoolLayout::aligned(pool_.shape().kv_heads * 4)),
            pool_.shape().kv_heads};
  }
  fed_lead_row_ = {carver.take<std::int32_t>(PoolLayout::aligned(plan.max_step_rows * 4)),
                   plan.max_step_rows};
  fed_on_host_.reserve(static_cast<std::size_t>(plan.max_step_rows));
  nan_flag_ = carver.take<std::int32_t>(PoolLayout::kAlignment);
  if (head.normed_features <= 1) return;
  const index_t zero_bytes = PoolLayout::aligned(hidden * dtype_bytes(compute_));
  zeros_ = vector_view(carver.take<std::byte>(zero_bytes), compute_, hidden);
}

inline void RetrievalHead::upload_constants(StreamView stream) {
  const HeadShape& head = weights_.shape;
  RopeFrequencies rope = rope_frequencies(weights_.rope, head.k_dim);
  for (std::size_t i = 0; i < weights_.rope_divisors.size(); ++i) {
    rope.frequency[i] /= weights_.rope_divisors[i];
  }
  magnitude_ = rope.magnitude;
  scale_ = 1 / std::sqrt(static_cast<float>(head.k_dim));
  std::vector<std::int32_t> map = config_.head_of_kv_head;
  for (index_t h = 0; map.size() < static_cast<std::size_t>(pool_.shape().kv_heads); ++h) {
    map.push_back(static_cast<std::int32_t>(h * head.kv_heads / pool_.shape().kv_heads));
  }
  backend_.fill(memory_.data(), 0, memory_.bytes(), stream);
  backend_.copy(frequency_.data, rope.frequency.data(), frequency_.size * 4, stream);
  backend_.copy(head_of_kv_head_.data, map.data(), head_of_kv_head_.size * 4, stream);
  if (config_.level == SelectionLevel::batch) map.assign(map.size(), 0);
  backend_.copy(scores_of_kv_head_.data, map.data(), scores_of_kv_head_.size * 4, stream);
}

}  // namespace spectx
