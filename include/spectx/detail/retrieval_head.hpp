// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bodies of RetrievalHead; include spectx/retrieval_head.hpp.
#include <string>

#include "spectx/retrieval_head.hpp"

namespace spectx {

inline RetrievalHead::RetrievalHead(Backend& backend, KVPool& pool, const HeadWeights& weights,
                                    const HeadConfig& config, Memories memories)
    : backend_(backend),
      pool_(pool),
      weights_(weights),
      config_(config),
      layout_(pool.shape(), pool.plan(), weights.shape,
              backend.compute_dtype(weights.q_proj.dtype)),
      compute_(backend.compute_dtype(weights.q_proj.dtype)),
      kept_(static_cast<std::size_t>(pool.plan().max_requests)) {
  check_weights();
  memory_ = Buffer(memories.device, layout_.bytes());
  carve();
  const Stream stream = backend.make_stream();
  upload_constants(stream);
  backend.synchronize(stream);
}

inline void RetrievalHead::check_weights() const {
  const ModelShape& target = pool_.shape();
  const HeadShape& head = weights_.shape;
  const auto check = [](const char* name, const TensorView& t, index_t rows, index_t cols) {
    const bool fits = t.data != nullptr && t.rank == (cols == 0 ? 1 : 2) && t.shape[0] == rows &&
                      (cols == 0 || t.shape[1] == cols);
    if (fits) return;
    throw InvalidArgument(std::string("RetrievalHead: ") + name + " must be [" +
                          std::to_string(rows) + (cols == 0 ? "" : ", " + std::to_string(cols)) +
                          "], is [" + std::to_string(t.shape[0]) +
                          (t.rank < 2 ? "" : ", " + std::to_string(t.shape[1])) + "]");
  };
  const auto features = static_cast<index_t>(weights_.feature_layers.size());
  expects(head.kv_heads == pool_.plan().head_kv_heads && head.k_dim == pool_.plan().head_k_dim,
          "RetrievalHead: the pool was planned for a head of another shape");
  expects(head.query_heads > 0 && head.query_heads % head.kv_heads == 0,
          "RetrievalHead: query_heads must be a positive multiple of kv_heads");
  expects(features > 0, "RetrievalHead: feature_layers is empty");
  for (const index_t layer : weights_.feature_layers) {
    expects(layer >= 0 && layer < target.layers,
            "RetrievalHead: a feature layer is not a layer of the target");
  }
  expects(std::is_sorted(weights_.feature_layers.begin(), weights_.feature_layers.end()),
          "RetrievalHead: feature_layers must ascend");
  check("fc", weights_.fc, target.hidden, features * target.hidden);
  check("input_norm", weights_.input_norm, target.hidden, 0);
  check("hidden_norm", weights_.hidden_norm, target.hidden, 0);
  check("q_proj", weights_.q_proj, head.query_heads * head.k_dim, 2 * target.hidden);
  check("k_proj", weights_.k_proj, head.kv_heads * head.k_dim, 2 * target.hidden);
  check("embeddings", weights_.embeddings, target.vocabulary, target.hidden);
  expects(config_.head_of_kv_head.empty() ||
              static_cast<index_t>(config_.head_of_kv_head.size()) == target.kv_heads,
          "RetrievalHead: head_of_kv_head must have one entry per KV head of the target");
  for (const std::int32_t h : config_.head_of_kv_head) {
    expects(h >= 0 && h < head.kv_heads, "RetrievalHead: head_of_kv_head names no head");
  }
}

inline void RetrievalHead::carve() {
  const PoolPlan& plan = pool_.plan();
  const HeadShape& head = weights_.shape;
  const index_t hidden = pool_.shape().hidden;
  detail::Carver carver(memory_.data());
  const auto matrix = [&](index_t bytes, index_t rows, index_t cols, DType dtype) {
    return matrix_view(carver.take<std::byte>(bytes), dtype, rows, cols);
  };
  fused_ = matrix(layout_.fused_bytes, plan.max_step_rows, hidden, compute_);
  ring_ = split_heads(
      matrix(layout_.ring_bytes, plan.max_requests, HeadLayout::kRingRows * hidden, compute_),
      HeadLayout::kRingRows, hidden);
  input_ = matrix(layout_.input_bytes, plan.max_step_rows, 2 * hidden, compute_);
  queries_ =
      matrix(layout_.query_bytes, plan.max_step_rows, head.query_heads * head.k_dim, compute_);
  keys_ = matrix(layout_.key_bytes, plan.max_step_rows, head.kv_heads * head.k_dim, compute_);
  log_sum_ = matrix(layout_.log_sum_bytes, plan.max_step_rows, head.query_heads, DType::f32);
  scores_ = split_heads(
      matrix(layout_.score_bytes, plan.max_requests, head.kv_heads * plan.max_length, DType::f32),
      head.kv_heads, plan.max_length);
  const index_t target_heads = plan.max_requests * pool_.shape().kv_heads;
  selection_.max_budget = plan.selection.budget;
  selection_.ids = {carver.take<std::int32_t>(layout_.ids_bytes),
                    target_heads * plan.selection.budget};
  selection_.counts = {carver.take<std::int32_t>(layout_.count_bytes), target_heads};
  selection_.coverage = {carver.take<float>(layout_.coverage_bytes), 2 * target_heads};
  frequency_ = {carver.take<float>(PoolLayout::aligned(head.k_dim / 2 * 4)), head.k_dim / 2};
  head_of_kv_head_ = {carver.take<std::int32_t>(PoolLayout::aligned(pool_.shape().kv_heads * 4)),
                      pool_.shape().kv_heads};
  fed_lead_row_ = {carver.take<std::int32_t>(PoolLayout::aligned(plan.max_step_rows * 4)),
                   plan.max_step_rows};
  fed_on_host_.reserve(static_cast<std::size_t>(plan.max_step_rows));
  nan_flag_ = carver.take<std::int32_t>(PoolLayout::kAlignment);
}

inline void RetrievalHead::upload_constants(StreamView stream) {
  const HeadShape& head = weights_.shape;
  const RopeFrequencies rope = rope_frequencies(weights_.rope, head.k_dim);
  magnitude_ = rope.magnitude;
  scale_ = 1 / std::sqrt(static_cast<float>(head.k_dim));
  std::vector<std::int32_t> map = config_.head_of_kv_head;
  for (index_t h = 0; map.size() < static_cast<std::size_t>(pool_.shape().kv_heads); ++h) {
    map.push_back(static_cast<std::int32_t>(h * head.kv_heads / pool_.shape().kv_heads));
  }
  backend_.fill(memory_.data(), 0, memory_.bytes(), stream);
  backend_.copy(frequency_.data, rope.frequency.data(), frequency_.size * 4, stream);
  backend_.copy(head_of_kv_head_.data, map.data(), head_of_kv_head_.size * 4, stream);
}

/// Whether the feature before the item's first row is in the ring.
inline bool RetrievalHead::is_fed(const ScheduledItem& item) const {
  const Kept& kept = kept_[static_cast<std::size_t>(item.request.value)];
  return item.first > kept.begin && item.first <= kept.end;
}

/// Leads whose key can be made. A row that is rerun after a long rewind has its key already.
inline Array<const std::int32_t> RetrievalHead::fed_leads(const Batch& batch, StreamView stream) {
  const bool is_all_fed = std::all_of(batch.items.begin(), batch.items.end(),
                                      [&](const ScheduledItem& item) { return is_fed(item); });
  if (is_all_fed) return batch.lead_row;
  fed_on_host_.clear();
  std::int32_t row = 0;
  for (const ScheduledItem& item : batch.items) {
    const index_t leads = item.selects ? item.rows : 1;
    for (std::int32_t n = 0; n < leads; ++n) fed_on_host_.push_back(is_fed(item) ? row + n : -1);
    row += static_cast<std::int32_t>(item.rows);
  }
  const auto leads = static_cast<index_t>(fed_on_host_.size());
  backend_.copy(fed_lead_row_.data, fed_on_host_.data(), leads * 4, stream);
  return {fed_lead_row_.data, leads};
}

inline const Selection& RetrievalHead::select(const Batch& batch, StreamView stream) {
  const TraceSpan span(backend_.trace(), "RetrievalHead::select");
  for (const ScheduledItem& item : batch.items) {
    if (item.first == 0) kept_[static_cast<std::size_t>(item.request.value)] = {};
    expects(!item.selects || item.first == 0 || is_fed(item),
            "RetrievalHead::select: a request was rewound past the features that are kept; rerun "
            "its last token as a dense item");
  }
  if (batch.num_rows > 0) enter_leads(batch, stream);
  if (batch.needs_selection) {
    const TensorView queries = split_heads(rows_of(queries_, batch.lead_row.size),
                                           weights_.shape.query_heads, weights_.shape.k_dim);
    backend_.score({.q = queries,
                    .keys = pool_.key_view(),
                    .batch = &batch,
                    .reduce = config_.reduce,
                    .scale = scale_,
                    .log_sum = log_sum_,
                    .scores = scores_},
                   stream);
    backend_.top_k({.scores = scores_,
                    .batch = &batch,
                    .rule = pool_.plan().selection,
                    .head_of_kv_head = head_of_kv_head_,
                    .out = selection_,
                    .saw_nan = nan_flag_},
                   stream);
    backend_.coverage({.q = queries,
                       .keys = pool_.key_view(),
                       .batch = &batch,
                       .scale = scale_,
                       .log_sum = log_sum_,
                       .head_of_kv_head = head_of_kv_head_,
                       .selection = selection_},
                      stream);
    backend_.copy(&nan_on_host_, nan_flag_, sizeof(nan_on_host_), stream);
  }
  return selection_;
}

/// Entries of the rows before which the target's features are known: keys, and queries where an
/// item selects. A later row of such an item (a draft) is given the last known feature; the key
/// that it gets here is replaced once its own is observed.
inline void RetrievalHead::enter_leads(const Batch& batch, StreamView stream) {
  const index_t leads = batch.lead_row.size;
  const index_t hidden = pool_.shape().hidden;
  const TensorView input = rows_of(input_, leads);
  const TensorView embedding = columns(input, 0, hidden);
  const TensorView feature = columns(input, hidden, hidden);
  backend_.embed({.table = weights_.embeddings,
                  .tokens = batch.tokens,
                  .row_index = batch.lead_row,
                  .out = embedding},
                 stream);
  backend_.rms_norm(
      {.x = embedding, .weight = weights_.input_norm, .out = embedding, .eps = weights_.norm_eps},
      stream);
  backend_.load_ring({.ring = ring_, .batch = &batch, .out = feature}, stream);
  backend_.rms_norm(
      {.x = feature, .weight = weights_.hidden_norm, .out = feature, .eps = weights_.norm_eps},
      stream);
  project_keys(input, batch, fed_leads(batch, stream), stream);
  if (!batch.needs_selection) return;
  const TensorView queries = rows_of(queries_, leads);
  backend_.matmul({.x = input, .w = weights_.q_proj, .out = queries}, stream);
  backend_.rope({.x = split_heads(queries, weights_.shape.query_heads, weights_.shape.k_dim),
                 .position = batch.position,
                 .row_index = batch.lead_row,
                 .frequency = frequency_,
                 .magnitude = magnitude_,
                 .position_offset = -1},
                stream);
}

inline void RetrievalHead::observe(index_t layer, const Batch& batch, TensorView hidden,
                                   StreamView stream) {
  const auto& taps = weights_.feature_layers;
  const auto tap = std::find(taps.begin(), taps.end(), layer);
  if (tap == taps.end() || batch.num_rows == 0) return;
  const TraceSpan span(backend_.trace(), "RetrievalHead::observe");
  const index_t width = pool_.shape().hidden;
  expects(hidden.rank == 2 && hidden.shape[0] == batch.num_rows && hidden.shape[1] == width,
          "RetrievalHead::observe: hidden must be [rows, hidden]");
  const TensorView fused = rows_of(fused_, batch.num_rows);
  for (auto t = tap; t != taps.end() && *t == layer; ++t) {
    const index_t place = t - taps.begin();
    backend_.matmul({.x = hidden,
                     .w = columns(weights_.fc, place * width, width),
                     .out = fused,
                     .beta = place == 0 ? 0.0F : 1.0F},
                    stream);
  }
  if (layer != taps.back()) return;
  backend_.store_ring({.rows = fused, .batch = &batch, .ring = ring_}, stream);
  for (const ScheduledItem& item : batch.items) {
    Kept& kept = kept_[static_cast<std::size_t>(item.request.value)];
    if (item.first < kept.begin || item.first > kept.end) kept.begin = item.first;
    kept.end = item.first + item.rows;
    kept.begin = std::max(kept.begin, kept.end - HeadLayout::kRingRows);
  }
  if (batch.max_rows_per_item > 1) enter_followers(batch, stream);
}

/// Keys of the rows whose feature this step has just made: row i + 1 with the feature of row i.
inline void RetrievalHead::enter_followers(const Batch& batch, StreamView stream) {
  const index_t hidden = pool_.shape().hidden;
  const TensorView input = rows_of(input_, batch.num_rows);
  const TensorView embedding = columns(input, 0, hidden);
  backend_.embed({.table = weights_.embeddings,
                  .tokens = batch.tokens,
                  .row_index = batch.follow_row,
                  .out = embedding},
                 stream);
  backend_.rms_norm(
      {.x = embedding, .weight = weights_.input_norm, .out = embedding, .eps = weights_.norm_eps},
      stream);
  backend_.rms_norm({.x = rows_of(fused_, batch.num_rows),
                     .weight = weights_.hidden_norm,
                     .out = columns(input, hidden, hidden),
                     .eps = weights_.norm_eps},
                    stream);
  project_keys(input, batch, batch.follow_row, stream);
}

inline void RetrievalHead::project_keys(TensorView input, const Batch& batch,
                                        Array<const std::int32_t> row_index, StreamView stream) {
  const HeadShape& head = weights_.shape;
  const TensorView out = rows_of(keys_, input.shape[0]);
  const TensorView keys = split_heads(out, head.kv_heads, head.k_dim);
  backend_.matmul({.x = input, .w = weights_.k_proj, .out = out}, stream);
  backend_.rope({.x = keys,
                 .position = batch.position,
                 .row_index = row_index,
                 .frequency = frequency_,
                 .magnitude = magnitude_,
                 .position_offset = -1},
                stream);
  backend_.append_rows({.k = keys, .batch = &batch, .row_index = row_index, .to = pool_.key_view()},
                       stream);
}

}  // namespace spectx
