// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "spectx/io/gguf.hpp"
#include "spectx/model_shape.hpp"
#include "spectx/rope.hpp"

namespace spectx::llama {

/// What a model file says of a decoder of the Llama family: Llama, Mistral, Qwen3.
struct LlamaConfig {
  index_t layers = 0;
  index_t hidden = 0;
  index_t feed_forward = 0;
  index_t query_heads = 0;
  index_t kv_heads = 0;
  index_t k_dim = 0;  // per head
  index_t v_dim = 0;
  index_t vocabulary = 0;
  index_t context_length = 0;  // tokens that it was trained for
  float rms_eps = 1e-5F;
  bool has_tied_embeddings = false;  // the output matrix is the embeddings
  bool has_qk_norm = false;          // RMS norms of the heads of q and k before RoPE (Qwen3)
  Rope rope;
  std::vector<float> rope_divisors;  // [k_dim / 2] of the frequencies (Llama 3.1), or empty

  /// Rows of the matrix that makes q, k and v together.
  index_t qkv_rows() const noexcept { return query_heads * k_dim + kv_heads * (k_dim + v_dim); }
};

/// Reads and checks the metadata. Throws Unsupported for another architecture or a feature that the
/// decoder lacks, FileError for a key that is missing or out of range.
LlamaConfig llama_config(const io::Gguf& file);

/// The sizes that the components need. @param dtype  of the cached rows
ModelShape model_shape(const LlamaConfig& config, DType dtype);

RopeFrequencies rope_frequencies(const LlamaConfig& config);

}  // namespace spectx::llama
