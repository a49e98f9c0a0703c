// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "llama/config.hpp"
#include "spectx/io/head_file.hpp"

namespace spectx::bench {

/// Names of the shapes that are known, for a help text.
std::string known_shapes();

/// A decoder by name, or from the config.json of the transformers library if the name ends in
/// .json. Throws InvalidArgument for a name that is not known, FileError, Unsupported.
llama::LlamaConfig model_by_name(const std::string& name);

/// A retrieval head of the target's heads with random weights: features after layers 2, the middle
/// and the last but two, as EAGLE-3 takes them. Throws OutOfMemory.
io::LoadedHead random_head(Backend& backend, const llama::LlamaConfig& model, TensorView embeddings,
                           DType dtype, StreamView stream);

}  // namespace spectx::bench
