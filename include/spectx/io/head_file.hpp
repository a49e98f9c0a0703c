// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "spectx/retrieval_head.hpp"

namespace spectx::io {

struct HeadOptions {
  DType dtype = DType::bf16;              // of the matrices: f32, f16 or bf16; norms are f32
  std::optional<float> rope_theta{};      // instead of the file's, whose scaling stays
  std::optional<Rope> rope{};             // instead of all that the file says of RoPE
  std::vector<index_t> feature_layers{};  // instead of the file's; the residual stream that enters
};

/// A retrieval head's weights in device memory. Owns them; must not outlive the backend.
struct LoadedHead {
  HeadWeights weights;
  Buffer storage;
  std::string target;  // the model that it was trained for; empty: the file says nothing
  std::vector<std::string> notes;  // what the file leaves open or gets wrong, and what was taken
};

/// Reads the query and key side of an EAGLE-3 draft head for a target of shape `target`: a folder
/// with config.json and model.safetensors (EAGLE, SpecForge, speculators, AngelSlim, DeepSpec), one
/// of these files, a single safetensors file of spectx-train-head or spectx-convert-head, or a GGUF
/// file of llama.cpp. docs/retrieval_head.md says what is read from where.
/// @param embeddings  [vocabulary, hidden], the target's: they serve a head of the target's width,
///                    unless it is a single file with its own
/// Throws FileError for what is missing or malformed, Unsupported for a head of another kind,
/// InvalidArgument that names everything that does not fit the target, OutOfMemory.
LoadedHead load_head(Backend& backend, const std::string& path, const ModelShape& target,
                     TensorView embeddings, const HeadOptions& options, StreamView stream);

}  // namespace spectx::io
