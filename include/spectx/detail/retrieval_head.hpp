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
                    .rule = rule_,
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

inline void RetrievalHead::set_budget(index_t budget) {
  SelectionConfig rule = rule_;
  rule.budget = budget;
  check_selection(rule);
  expects(budget <= selection_.max_budget,
          "RetrievalHead::set_budget: the budget is larger than the plan's");
  rule_ = rule;
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
