// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "llama/config.hpp"
#include "spectx/backend.hpp"
#include "spectx/io/gguf.hpp"

namespace spectx::llama {

/// One layer's matrices, [out, in]; those that read the same input are one.
struct LayerWeights {
  TensorView attention_norm;  // [hidden] f32
  TensorView qkv;             // [q | k | v, hidden], rows of q and k for half-split RoPE
  TensorView q_norm, k_norm;  // [k_dim] f32, or none
  TensorView output;          // [hidden, query_heads * v_dim]
  TensorView mlp_norm;        // [hidden] f32
  TensorView gate_up;         // [gate | up, hidden]
  TensorView down;            // [hidden, feed_forward]
};

struct AllWeights {
  TensorView embeddings;  // [vocabulary, hidden]
  TensorView final_norm;  // [hidden] f32
  TensorView head;        // [vocabulary, hidden]; may be the embeddings
  std::vector<LayerWeights> layers;
};

/// A decoder's weights in device memory. Immutable; owns one allocation, which must not outlive the
/// backend.
class LlamaWeights {
 public:
  /// Decodes the file's tensors, a few rows at a time, into `dtype` (f32, f16 or bf16); norms stay
  /// f32. Throws FileError that names the tensor and its dimensions where they are not the
  /// config's, Unsupported for a tensor that the decoder does not know, OutOfMemory.
  LlamaWeights(Backend& backend, const io::Gguf& file, const LlamaConfig& config, DType dtype,
               StreamView stream);

  /// Weights of a seed, for measurements: any output is as good as another. Matrices are made of
  /// one block of random values again and again. Throws OutOfMemory.
  LlamaWeights(Backend& backend, const LlamaConfig& config, DType dtype, std::uint64_t seed,
               StreamView stream);

  static index_t bytes(const LlamaConfig& config, DType dtype);
  /// Bytes of device memory that they take. Throws like the constructor for tensors that do not
  /// fit.
  static index_t bytes(const io::Gguf& file, const LlamaConfig& config, DType dtype);

  const LlamaConfig& config() const noexcept { return config_; }
  DType dtype() const noexcept { return dtype_; }
  const AllWeights& all() const noexcept { return all_; }
  const LayerWeights& layer(index_t l) const { return all_.layers[static_cast<std::size_t>(l)]; }
  index_t bytes() const noexcept { return storage_.bytes(); }

 private:
  LlamaConfig config_;
  DType dtype_;
  Buffer storage_;
  AllWeights all_;
};

}  // namespace spectx::llama
