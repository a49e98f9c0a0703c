// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bodies of RetrievalHead but for its construction; include spectx/retrieval_head.hpp.
#include "spectx/retrieval_head.hpp"

namespace spectx {

/// Whether the feature before the item's first row is in the ring.
inline bool RetrievalHead::is_fed(const ScheduledItem& item) const {
  const Kept& kept = kept_[static_cast<std::size_t>(item.request.value)];
  return item.first > kept.begin && item.first <= kept.end;
}

/// Leads whose key can be made. A row that is rerun after a long rewind has its key already. Token
/// 0 has no feature and is never chosen by its key; it gets one because keys are read by tiles.
inline Array<const std::int32_t> RetrievalHead::fed_leads(const Batch& batch, StreamView stream) {
  if (can_replay(batch)) return batch.lead_row;
  fed_on_host_.clear();
  std::int32_t row = 0;
  for (const ScheduledItem& item : batch.items) {
    const index_t leads = item.selects ? item.rows : 1;
    const bool has_key = item.first == 0 || is_fed(item);
    for (std::int32_t n = 0; n < leads; ++n) fed_on_host_.push_back(has_key ? row + n : -1);
    row += static_cast<std::int32_t>(item.rows);
  }
  const auto leads = static_cast<index_t>(fed_on_host_.size());
  backend_.copy(fed_lead_row_.data, fed_on_host_.data(), leads * 4, stream);
  return {fed_lead_row_.data, leads};
}

inline bool RetrievalHead::can_replay(const Batch& batch) const {
  return std::all_of(batch.items.begin(), batch.items.end(),
                     [&](const ScheduledItem& item) { return is_fed(item); });
}

inline void RetrievalHead::begin_replay(const Batch& batch) {
  expects(can_replay(batch), "RetrievalHead::begin_replay: a request's last feature is not kept");
  keep(batch);
}

/// Notes the features that the step leaves in the ring.
inline void RetrievalHead::keep(const Batch& batch) {
  for (const ScheduledItem& item : batch.items) {
    Kept& kept = kept_[static_cast<std::size_t>(item.request.value)];
    if (item.first < kept.begin || item.first > kept.end) kept.begin = item.first;
    kept.end = item.first + item.rows;
    kept.begin = std::max(kept.begin, kept.end - HeadLayout::kRingRows);
  }
}

inline const Selection& RetrievalHead::select(const Batch& batch, StreamView stream) {
  const TraceSpan span(backend_.trace(), "RetrievalHead::select");
  expects(!backend_.is_capturing(stream) || can_replay(batch),
          "RetrievalHead::select: this batch cannot be captured: a request's last feature is not "
          "kept");
  for (const ScheduledItem& item : batch.items) {
    if (item.first == 0) kept_[static_cast<std::size_t>(item.request.value)] = {};
    expects(!item.selects || item.first == 0 || is_fed(item),
            "RetrievalHead::select: a request was rewound past the features that are kept; rerun "
            "its last token as a dense item");
  }
  if (batch.num_rows > 0) enter_leads(batch, stream);
  guard(batch, -1, stream);
  if (batch.needs_selection) {
    const TensorView queries = split_heads(rows_of(queries_, batch.lead_row.size),
                                           weights_.shape.query_heads, weights_.shape.k_dim);
    backend_.score({.q = queries,
                    .keys = pool_.key_view(),
                    .batch = &batch,
                    .reduce = reduce(),
                    .scale = scale_,
                    .log_sum = log_sum_,
                    .scores = scores_},
                   stream);
    if (config_.level == SelectionLevel::batch) {
      backend_.join_heads({.scores = scores_, .batch = &batch, .reduce = reduce()}, stream);
    }
    choose(batch, queries, stream);
    backend_.copy(host_memory_.data(), nan_flag_, sizeof(std::int32_t), stream);
  }
  return selection_;
}

/// Entries of the rows before which the target's features are known: keys, and queries where an
/// item selects. A later row of such an item (a draft) is given the last known feature; the key
/// that it gets here is replaced once its own is observed.
inline void RetrievalHead::enter_leads(const Batch& batch, StreamView stream) {
  const index_t leads = batch.lead_row.size;
  const index_t width = weights_.shape.width(pool_.shape());
  const TensorView input = rows_of(input_, leads);
  const TensorView embedding = columns(input, 0, width);
  const TensorView feature = columns(input, width, width);
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
  const Projection to_queries{weights_.q_proj, weights_.q_bias, weights_.q_norm,
                              weights_.shape.query_heads};
  project(to_queries, input, batch, batch.lead_row, rows_of(queries_, leads), stream);
}

inline void RetrievalHead::observe(index_t layer, const Batch& batch, TensorView hidden,
                                   StreamView stream) {
  const auto& taps = weights_.feature_layers;
  const auto tap = std::find(taps.begin(), taps.end(), layer);
  if (tap == taps.end() || batch.num_rows == 0) return;
  const TraceSpan span(backend_.trace(), "RetrievalHead::observe");
  expects(hidden.rank == 2 && hidden.shape[0] == batch.num_rows &&
              hidden.shape[1] == pool_.shape().hidden && hidden.strides[1] == 1,
          "RetrievalHead::observe: hidden must be [rows, hidden], dense in its rows");
  expects(hidden.dtype == compute_,
          "RetrievalHead::observe: hidden must be of the compute dtype of the head's weights");
  for (auto t = tap; t != taps.end() && *t == layer; ++t) fuse(t - taps.begin(), hidden, stream);
  if (layer != taps.back()) return;
  const TensorView fused = rows_of(fused_, batch.num_rows);
  backend_.store_ring({.rows = fused, .batch = &batch, .ring = ring_}, stream);
  if (!backend_.is_capturing(stream)) keep(batch);
  if (batch.max_rows_per_item > 1) enter_followers(batch, stream);
}

/// Adds fc's share of the feature at `place`; those that are normalised together wait for the last.
inline void RetrievalHead::fuse(index_t place, TensorView hidden, StreamView stream) {
  const HeadWeights& w = weights_;
  const index_t width = hidden.shape[1];
  const index_t count = hidden.shape[0];
  const bool is_last = place + 1 == static_cast<index_t>(w.feature_layers.size());
  const TensorView fused = rows_of(fused_, count);
  TensorView x = hidden;
  TensorView fc = columns(w.fc, place * width, width);
  TensorView norm = w.feature_norm;
  if (w.shape.normed_features > 1) {
    const TensorView own = columns(rows_of(features_, count), place * width, width);
    backend_.add({.a = hidden, .b = repeated(zeros_, count), .out = own}, stream);
    if (!is_last) return;
    x = rows_of(features_, count);
    fc = w.fc;
    place = 0;
  } else if (norm) {
    norm = rows(norm, place * width, width);
  }
  if (norm) {
    const TensorView out = rows_of(features_, count);
    backend_.rms_norm({.x = x, .weight = norm, .out = out, .eps = w.norm_eps}, stream);
    x = out;
  }
  backend_.matmul({.x = x, .w = fc, .out = fused, .beta = place == 0 ? 0.0F : 1.0F}, stream);
  if (!is_last || !w.fc_bias) return;
  backend_.add({.a = fused, .b = repeated(w.fc_bias, count), .out = fused}, stream);
}

/// Keys of the rows whose feature this step has just made: row i + 1 with the feature of row i.
inline void RetrievalHead::enter_followers(const Batch& batch, StreamView stream) {
  const index_t width = weights_.shape.width(pool_.shape());
  const TensorView input = rows_of(input_, batch.num_rows);
  const TensorView embedding = columns(input, 0, width);
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
                     .out = columns(input, width, width),
                     .eps = weights_.norm_eps},
                    stream);
  project_keys(input, batch, batch.follow_row, stream);
}

inline void RetrievalHead::project_keys(TensorView input, const Batch& batch,
                                        Array<const std::int32_t> row_index, StreamView stream) {
  const HeadShape& head = weights_.shape;
  const TensorView out = rows_of(keys_, input.shape[0]);
  project({weights_.k_proj, weights_.k_bias, weights_.k_norm, head.kv_heads}, input, batch,
          row_index, out, stream);
  backend_.append_rows({.k = split_heads(out, head.kv_heads, head.k_dim),
                        .batch = &batch,
                        .row_index = row_index,
                        .to = pool_.key_view()},
                       stream);
}

inline void RetrievalHead::project(const Projection& by, TensorView input, const Batch& batch,
                                   Array<const std::int32_t> row_index, TensorView out,
                                   StreamView stream) {
  const index_t count = input.shape[0];
  const index_t dim = weights_.shape.k_dim;
  backend_.matmul({.x = input, .w = by.weight, .out = out}, stream);
  if (by.bias) backend_.add({.a = out, .b = repeated(by.bias, count), .out = out}, stream);
  if (by.norm) {
    const TensorView heads = matrix_view(out.data, out.dtype, count * by.heads, dim);
    backend_.rms_norm({.x = heads, .weight = by.norm, .out = heads, .eps = weights_.norm_eps},
                      stream);
  }
  backend_.rope({.x = split_heads(out, by.heads, dim),
                 .position = batch.position,
                 .row_index = row_index,
                 .frequency = frequency_,
                 .magnitude = magnitude_,
                 .position_offset = -1},
                stream);
}

}  // namespace spectx
