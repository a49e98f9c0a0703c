// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/io/safetensors.hpp"
#include "spectx/retrieval_head.hpp"

namespace spectx::llama {

/// A retrieval head's weights in device memory. Owns them; must not outlive the backend.
struct LoadedHead {
  HeadWeights weights;
  Buffer storage;
};

/// Reads a head with EAGLE-3 tensor names for a target of shape `target`. Matrices become `dtype`,
/// norms f32. A file with embed_tokens.weight has its own embeddings, else `embeddings`, the
/// target's, serve it.
///
/// Metadata: feature_layers (0-based; the residual stream after them), num_attention_heads,
/// num_key_value_heads, head_dim, rope_theta, rms_norm_eps. Throws FileError for what is missing or
/// malformed, InvalidArgument that lists everything that does not fit the target, OutOfMemory.
LoadedHead load_head(Backend& backend, const io::Safetensors& file, const ModelShape& target,
                     TensorView embeddings, DType dtype, StreamView stream);

}  // namespace spectx::llama
