// SPDX-License-Identifier: Apache-2.0
#include "llama/decoder.hpp"

#include "llama/carve.hpp"

namespace spectx::llama {

LlamaDecoder::Buffers LlamaDecoder::place(std::byte* base, const LlamaConfig& model,
                                          const DecoderConfig& config, DType compute_dtype) {
  Carver carver(base);
  const index_t step = config.max_step_rows;
  const index_t asked = config.max_logit_rows;
  Buffers b;
  b.hidden = carver.matrix(compute_dtype, step, model.hidden);
  b.normed = carver.matrix(compute_dtype, step, model.hidden);
  b.qkv = carver.matrix(compute_dtype, step, model.qkv_rows());
  b.attention = carver.matrix(compute_dtype, step, model.query_heads * model.v_dim);
  b.gate_up = carver.matrix(compute_dtype, step, 2 * model.feed_forward);
  b.logit_in = carver.matrix(compute_dtype, asked, model.hidden);
  b.logits = carver.matrix(compute_dtype, asked, model.vocabulary);
  b.tokens = carver.vector(DType::i32, asked);
  b.frequency = carver.vector(DType::f32, model.k_dim / 2);
  b.bytes = carver.bytes();
  return b;
}

index_t LlamaDecoder::bytes(const LlamaConfig& model, const DecoderConfig& config,
                            DType compute_dtype) {
  return place(nullptr, model, config, compute_dtype).bytes;
}

LlamaDecoder::LlamaDecoder(Backend& backend, const LlamaWeights& weights,
                           const DecoderConfig& config, StreamView stream)
    : backend_(backend), weights_(weights), config_(config) {
  expects(config.max_step_rows >= 1, "LlamaDecoder: max_step_rows must be at least 1");
  expects(config.max_logit_rows >= 1, "LlamaDecoder: max_logit_rows must be at least 1");
  const LlamaConfig& model = weights.config();
  const DType compute = backend.compute_dtype(weights.dtype());
  storage_ = Buffer(backend.memories().device, bytes(model, config, compute));
  buffers_ = place(storage_.data(), model, config, compute);
  const RopeFrequencies table = rope_frequencies(model);
  magnitude_ = table.magnitude;
  backend.copy(buffers_.frequency.data, table.frequency.data(), model.k_dim / 2 * 4, stream);
}

void LlamaDecoder::embed(const Batch& batch, StreamView stream) {
  expects(batch.num_rows <= config_.max_step_rows,
          "LlamaDecoder::embed: the batch has more than max_step_rows rows");
  num_rows_ = batch.num_rows;
  backend_.embed({.table = weights_.all().embeddings,
                  .tokens = batch.tokens,
                  .row_index = {},
                  .out = hidden()},
                 stream);
}

LlamaDecoder::Qkv LlamaDecoder::qkv(index_t layer, const Batch& batch, StreamView stream) {
  const LlamaConfig& model = weights_.config();
  const LayerWeights& w = weights_.layer(layer);
  const TensorView normed = rows(buffers_.normed, 0, num_rows_);
  const TensorView all = rows(buffers_.qkv, 0, num_rows_);
  backend_.rms_norm(
      {.x = hidden(), .weight = w.attention_norm, .out = normed, .eps = model.rms_eps}, stream);
  backend_.matmul({.x = normed, .w = w.qkv, .out = all}, stream);

  const index_t q_cols = model.query_heads * model.k_dim;
  const index_t k_cols = model.kv_heads * model.k_dim;
  const index_t v_cols = model.kv_heads * model.v_dim;
  const TensorView q = split_heads(columns(all, 0, q_cols), model.query_heads, model.k_dim);
  const TensorView k = split_heads(columns(all, q_cols, k_cols), model.kv_heads, model.k_dim);
  if (model.has_qk_norm) {
    backend_.rms_norm({.x = q, .weight = w.q_norm, .out = q, .eps = model.rms_eps}, stream);
    backend_.rms_norm({.x = k, .weight = w.k_norm, .out = k, .eps = model.rms_eps}, stream);
  }
  // q and k lie side by side and turn alike: one call for both.
  const Array<const float> frequency{buffers_.frequency.as<const float>(), model.k_dim / 2};
  backend_.rope({.x = split_heads(columns(all, 0, q_cols + k_cols),
                                  model.query_heads + model.kv_heads, model.k_dim),
                 .position = batch.position,
                 .row_index = {},
                 .frequency = frequency,
                 .magnitude = magnitude_},
                stream);
  return {.q = q,
          .k = k,
          .v = split_heads(columns(all, q_cols + k_cols, v_cols), model.kv_heads, model.v_dim)};
}

TensorView LlamaDecoder::attention_out() const noexcept {
  const LlamaConfig& model = weights_.config();
  return split_heads(rows(buffers_.attention, 0, num_rows_), model.query_heads, model.v_dim);
}

void LlamaDecoder::finish(index_t layer, StreamView stream) {
  const LlamaConfig& model = weights_.config();
  const LayerWeights& w = weights_.layer(layer);
  const TensorView normed = rows(buffers_.normed, 0, num_rows_);
  const TensorView both = rows(buffers_.gate_up, 0, num_rows_);
  const TensorView gate = columns(both, 0, model.feed_forward);
  const TensorView up = columns(both, model.feed_forward, model.feed_forward);
  backend_.matmul(
      {.x = rows(buffers_.attention, 0, num_rows_), .w = w.output, .out = hidden(), .beta = 1},
      stream);
  backend_.rms_norm({.x = hidden(), .weight = w.mlp_norm, .out = normed, .eps = model.rms_eps},
                    stream);
  backend_.matmul({.x = normed, .w = w.gate_up, .out = both}, stream);
  backend_.swiglu({.gate = gate, .up = up, .out = gate}, stream);
  backend_.matmul({.x = gate, .w = w.down, .out = hidden(), .beta = 1}, stream);
}

void LlamaDecoder::norm_for_logits(index_t first, index_t count, index_t to, StreamView stream) {
  backend_.rms_norm({.x = rows(buffers_.hidden, first, count),
                     .weight = weights_.all().final_norm,
                     .out = rows(buffers_.logit_in, to, count),
                     .eps = weights_.config().rms_eps},
                    stream);
}

TensorView LlamaDecoder::project_logits(index_t count, StreamView stream) {
  const TensorView out = rows(buffers_.logits, 0, count);
  backend_.matmul({.x = rows(buffers_.logit_in, 0, count), .w = weights_.all().head, .out = out},
                  stream);
  return out;
}

TensorView LlamaDecoder::logits(index_t first, index_t count, StreamView stream) {
  expects(first >= 0 && count >= 0 && first + count <= num_rows_,
          "LlamaDecoder::logits: the batch has no such rows");
  expects(count <= config_.max_logit_rows,
          "LlamaDecoder::logits: more than max_logit_rows rows are asked for");
  norm_for_logits(first, count, 0, stream);
  return project_logits(count, stream);
}

TensorView LlamaDecoder::last_logits(const Batch& batch, StreamView stream) {
  const auto items = static_cast<index_t>(batch.items.size());
  expects(items <= config_.max_logit_rows,
          "LlamaDecoder::last_logits: the batch has more than max_logit_rows items");
  if (batch.num_rows == items) return logits(0, items, stream);  // decode rows only
  index_t end = 0;
  for (index_t i = 0; i < items; ++i) {
    end += batch.items[static_cast<std::size_t>(i)].rows;
    norm_for_logits(end - 1, 1, i, stream);
  }
  return project_logits(items, stream);
}

Array<const std::int32_t> LlamaDecoder::likeliest(TensorView logits, StreamView stream) {
  const Array<std::int32_t> tokens{buffers_.tokens.as<std::int32_t>(), logits.shape[0]};
  backend_.argmax({.logits = logits, .out = tokens}, stream);
  return {tokens.data, tokens.size};
}

}  // namespace spectx::llama
