// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "llama/weights.hpp"
#include "spectx/backend.hpp"

namespace spectx::llama {

struct DecoderConfig {
  index_t max_step_rows = 512;  // rows of one batch
  index_t max_logit_rows = 1;   // rows whose logits are asked for at once
};

/// The forward pass of a Llama-like model in the pieces that a decode loop calls between those of
/// spectx: embed; for every layer qkv, (attend), finish; then logits. Asynchronous on `stream`,
/// allocates nothing after construction. Not thread-safe; the weights must outlive it.
///
/// Activations are of Backend::compute_dtype. Views stay valid until the next call that writes
/// them.
class LlamaDecoder {
 public:
  struct Qkv {
    TensorView q;  // [rows, query_heads, k_dim], rotated
    TensorView k;  // [rows, kv_heads, k_dim], rotated
    TensorView v;  // [rows, kv_heads, v_dim]
  };

  /// Throws OutOfMemory.
  LlamaDecoder(Backend& backend, const LlamaWeights& weights, const DecoderConfig& config,
               StreamView stream);

  /// Device bytes of the activations.
  static index_t bytes(const LlamaConfig& model, const DecoderConfig& config, DType compute_dtype);

  /// The residual stream starts as the tokens' embeddings. Throws InvalidArgument for a batch of
  /// more than max_step_rows.
  void embed(const Batch& batch, StreamView stream);
  Qkv qkv(index_t layer, const Batch& batch, StreamView stream);
  /// [rows, query_heads, v_dim], for attend to write. Valid until the layer's finish.
  TensorView attention_out() const noexcept;
  /// Output projection and MLP, both added to the residual stream.
  void finish(index_t layer, StreamView stream);
  /// [rows, hidden] the residual stream.
  TensorView hidden() const noexcept { return rows(buffers_.hidden, 0, num_rows_); }

  /// [items, vocabulary] of the last row of every item. Throws InvalidArgument for more than
  /// max_logit_rows.
  TensorView last_logits(const Batch& batch, StreamView stream);
  /// [count, vocabulary] of the batch's rows from `first` on. Throws InvalidArgument likewise.
  TensorView logits(index_t first, index_t count, StreamView stream);
  /// The likeliest token of each row of `logits`, in device memory.
  Array<const std::int32_t> likeliest(TensorView logits, StreamView stream);

  const LlamaWeights& weights() const noexcept { return weights_; }
  const DecoderConfig& config() const noexcept { return config_; }

 private:
  struct Buffers {
    TensorView hidden;     // [max_step_rows, hidden]
    TensorView normed;     // [max_step_rows, hidden]
    TensorView qkv;        // [max_step_rows, q | k | v]
    TensorView attention;  // [max_step_rows, query_heads * v_dim]
    TensorView gate_up;    // [max_step_rows, gate | up]
    TensorView logit_in;   // [max_logit_rows, hidden]
    TensorView logits;     // [max_logit_rows, vocabulary]
    TensorView tokens;     // [max_logit_rows] i32
    TensorView frequency;  // [k_dim / 2] f32
    index_t bytes = 0;
  };
  static Buffers place(std::byte* base, const LlamaConfig& model, const DecoderConfig& config,
                       DType compute_dtype);

  void norm_for_logits(index_t first, index_t count, index_t to, StreamView stream);
  TensorView project_logits(index_t count, StreamView stream);

  Backend& backend_;
  const LlamaWeights& weights_;
  DecoderConfig config_;
  float magnitude_ = 1;
  Buffer storage_;
  Buffers buffers_;
  index_t num_rows_ = 0;
};

}  // namespace spectx::llama
