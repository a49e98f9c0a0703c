// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <random>
#include <span>
#include <vector>

#include "spectx/spectx.hpp"

namespace toy {

using namespace spectx;

/// A decoder with random weights, in the pieces that an engine already has: 4 layers, 4 query
/// heads, 2 KV heads. Its retrieval head is random too.
class Model {
 public:
  explicit Model(Backend& backend, index_t max_rows, unsigned seed = 1)
      : backend_(backend), max_rows_(max_rows), random_(seed) {
    embeddings_ = weight(shape.vocabulary, shape.hidden);
    norm_ = weight(1, shape.hidden, 1);
    norm_.rank = 1;
    norm_.shape = {shape.hidden};
    norm_.strides = {1};
    for (index_t l = 0; l < shape.layers; ++l) {
      layers_.push_back({weight(kQkv, shape.hidden), weight(shape.hidden, kQ),
                         weight(2 * kInner, shape.hidden), weight(shape.hidden, kInner)});
    }
    head.shape = {.query_heads = shape.query_heads, .kv_heads = shape.kv_heads, .k_dim = kDim};
    head.fc = weight(shape.hidden, shape.hidden);
    head.input_norm = head.hidden_norm = norm_;
    head.q_proj = weight(kQ, 2 * shape.hidden);
    head.k_proj = weight(shape.kv_heads * kDim, 2 * shape.hidden);
    head.embeddings = embeddings_;
    head.feature_layers = {2};
    head.rope = shape.rope;
    const RopeFrequencies rope = rope_frequencies(shape.rope, kDim);
    frequency_ = {upload(rope.frequency).as<float>(), kDim / 2};
    hidden_ = rows_of(shape.hidden);
    normed_ = rows_of(shape.hidden);
    qkv_ = rows_of(kQkv);
    attention_ = rows_of(kQ);
    inner_ = rows_of(2 * kInner);
    logits_ = rows_of(shape.vocabulary);
    next_ = {rows_of(1).as<std::int32_t>(), max_rows};
  }

  struct Qkv {
    TensorView q, k, v;  // [rows, heads, dim] after RoPE
  };

  void embed(const Batch& batch, StreamView stream) {
    backend_.embed({.table = embeddings_, .tokens = batch.tokens, .out = hidden(batch)}, stream);
  }
  Qkv qkv(index_t layer, const Batch& batch, StreamView stream) {
    const TensorView normed = rows(normed_, 0, batch.num_rows);
    const TensorView out = rows(qkv_, 0, batch.num_rows);
    const index_t heads = shape.query_heads + shape.kv_heads;
    backend_.rms_norm({.x = hidden(batch), .weight = norm_, .out = normed}, stream);
    backend_.matmul({.x = normed, .w = at(layer).qkv, .out = out}, stream);
    backend_.rope({.x = split_heads(columns(out, 0, heads * kDim), heads, kDim),
                   .position = batch.position,
                   .frequency = frequency_},
                  stream);
    return {split_heads(columns(out, 0, kQ), shape.query_heads, kDim),
            split_heads(columns(out, kQ, kKv), shape.kv_heads, kDim),
            split_heads(columns(out, kQ + kKv, kKv), shape.kv_heads, kDim)};
  }
  TensorView attention_out(const Batch& batch) {
    return split_heads(rows(attention_, 0, batch.num_rows), shape.query_heads, kDim);
  }
  /// Output projection and MLP, onto the residual stream.
  void finish(index_t layer, const Batch& batch, StreamView stream) {
    const TensorView x = hidden(batch);
    const TensorView normed = rows(normed_, 0, batch.num_rows);
    const TensorView inner = rows(inner_, 0, batch.num_rows);
    const TensorView gate = columns(inner, 0, kInner);
    const TensorView up = columns(inner, kInner, kInner);
    const TensorView attended = rows(attention_, 0, batch.num_rows);
    backend_.matmul({.x = attended, .w = at(layer).out, .out = x, .beta = 1}, stream);
    backend_.rms_norm({.x = x, .weight = norm_, .out = normed}, stream);
    backend_.matmul({.x = normed, .w = at(layer).gate_up, .out = inner}, stream);
    backend_.swiglu({.gate = gate, .up = up, .out = gate}, stream);
    backend_.matmul({.x = gate, .w = at(layer).down, .out = x, .beta = 1}, stream);
  }
  /// The likeliest next token of every item. Async: `next` is there once the stream is.
  void next_tokens(const Batch& batch, std::int32_t* next, StreamView stream) {
    const auto items = static_cast<index_t>(batch.items.size());
    if (items == 0) return;
    const TensorView last = rows(normed_, 0, items);
    const TensorView logits = rows(logits_, 0, items);
    backend_.embed({.table = hidden(batch), .tokens = batch.last_row, .out = last}, stream);
    backend_.rms_norm({.x = last, .weight = norm_, .out = last}, stream);
    backend_.matmul({.x = last, .w = embeddings_, .out = logits}, stream);
    backend_.argmax({.logits = logits, .out = {next_.data, items}}, stream);
    backend_.copy(next, next_.data, items * 4, stream);
  }
  TensorView hidden(const Batch& batch) const { return rows(hidden_, 0, batch.num_rows); }

  static constexpr index_t kDim = 16, kQ = 64, kKv = 32, kQkv = kQ + 2 * kKv, kInner = 128;
  const ModelShape shape{.layers = 8,
                         .query_heads = 4,
                         .kv_heads = 2,
                         .k_dim = kDim,
                         .v_dim = kDim,
                         .hidden = 64,
                         .vocabulary = 256,
                         .dtype = DType::f32,
                         .rope = {},
                         .attention = {}};
  HeadWeights head;

 private:
  struct Layer {
    TensorView qkv, out, gate_up, down;
  };

  const Layer& at(index_t layer) const { return layers_[static_cast<std::size_t>(layer)]; }
  TensorView allocate(index_t rows, index_t cols) {
    memory_.emplace_back(backend_.memories().device, rows * cols * 4);
    return matrix_view(memory_.back().data(), DType::f32, rows, cols);
  }
  TensorView rows_of(index_t cols) { return allocate(max_rows_, cols); }
  TensorView upload(const std::vector<float>& values) {
    const auto n = static_cast<index_t>(values.size());
    const TensorView out = allocate(1, n);
    const Stream stream = backend_.make_stream();
    backend_.copy(out.data, values.data(), n * 4, stream);
    backend_.synchronize(stream);
    return out;
  }
  TensorView weight(index_t rows, index_t cols, float mean = 0) {
    std::normal_distribution<float> normal(mean, 1 / std::sqrt(static_cast<float>(cols)));
    std::vector<float> values(static_cast<std::size_t>(rows * cols));
    for (float& v : values) v = normal(random_);
    return matrix_view(upload(values).data, DType::f32, rows, cols);
  }

  Backend& backend_;
  index_t max_rows_;
  std::mt19937 random_;
  std::vector<Buffer> memory_;
  std::vector<Layer> layers_;
  TensorView embeddings_{}, norm_{}, hidden_{}, normed_{}, qkv_{}, attention_{}, inner_{},
      logits_{};
  Array<std::int32_t> next_{};
  Array<const float> frequency_{};
};

/// One conversation: what is known of its text, and how much of it is cached.
struct Session {
  RequestId id;
  std::vector<std::int32_t> text;
  std::size_t cached = 0;
  index_t end = 0;  // tokens of the finished text

  bool is_done() const { return static_cast<index_t>(text.size()) >= end; }
  /// More than the prompt's last token, which decodes, is left to read.
  bool is_prompt() const { return text.size() - cached > 1; }
  std::span<const std::int32_t> next(std::size_t chunk) const {
    const std::size_t left = text.size() - cached;
    return std::span(text).subspan(cached, left > 1 ? std::min(left - 1, chunk) : 1);
  }
};

/// Who arrives at a step: eight prompts of 300 to 1,000 tokens that want 32 more, one every 4
/// steps.
inline std::vector<Session> arrivals(int step) {
  if (step % 4 != 0 || step >= 32) return {};
  Session s;
  for (int i = 0; i < 300 + 100 * (step / 4); ++i) s.text.push_back((i * i + 7 * step) % 256);
  s.end = static_cast<index_t>(s.text.size()) + 32;
  return {std::move(s)};
}

}  // namespace toy
