// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "spectx/model_shape.hpp"

namespace spectx::plan {

/// A model as far as the planner needs it, and where each figure is from.
struct ModelSource {
  ModelShape shape;
  std::string name;
  index_t feed_forward = 0;  // of a config.json
  bool has_tied_embeddings = false;
  index_t weight_bytes = 0;
  std::string weight_origin;
  index_t context_length = 0;  // that the model was trained for; 0: not said
  std::vector<std::string> notes;
};

/// Dimensions from which weights can be estimated, beside those of the shape.
struct WeightDims {
  index_t feed_forward = 0;  // 0: taken as 3.5 times the hidden size
  bool has_tied_embeddings = false;
};

/// Matrices of a decoder of the Llama family (gated feed-forward, no biases) in the shape's dtype.
/// Throws InvalidArgument for dimensions beyond 2^20.
index_t estimate_weight_bytes(const ModelShape& shape, const WeightDims& dims);

/// config.json of the transformers library: llama, mistral, qwen2 and qwen3. Throws FileError that
/// names the file and the field, Unsupported for another family.
ModelSource read_hf_config(const std::string& path);

/// Metadata and tensor sizes of a GGUF file: llama, qwen2 and qwen3. Throws FileError, Unsupported.
ModelSource read_gguf(const std::string& path);

}  // namespace spectx::plan
