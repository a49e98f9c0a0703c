// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "head_tensors.hpp"
#include "spectx/io/head_file.hpp"

namespace spectx::io {

/// One tensor of HeadWeights and the file's tensors that make it, one below the other.
struct HeadPart {
  TensorView HeadWeights::*to = nullptr;
  std::vector<std::string> names;
  index_t rows = 0, cols = 0;  // of all of them; cols 0: a vector of rows
  index_t heads = 0;           // 0, or heads whose rows are interleaved in the file
  bool is_bias = false;
};

/// How a file becomes a head of a target: sizes and layers, and the tensors to read.
struct HeadFit {
  HeadWeights weights;  // all but the tensors, and the embeddings if they are the target's
  std::vector<HeadPart> parts;
  std::string target;
  std::vector<std::string> notes;
};

/// Throws InvalidArgument with one message that names everything that does not fit.
HeadFit fit_head(const HeadTensors& file, const ModelShape& target, TensorView embeddings,
                 const HeadOptions& options);

}  // namespace spectx::io
