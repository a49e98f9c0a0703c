// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

#include "block_decoders.hpp"
#include "spectx/view.hpp"

namespace spectx::io {

/// A stored matrix and how to decode it.
struct StoredRows {
  std::string_view file;  // for messages
  std::string_view name;
  const std::byte* data = nullptr;
  index_t rows = 0;
  index_t cols = 0;  // a multiple of block_elements
  index_t block_elements = 1;
  index_t block_bytes = 0;
  BlockDecoder decode = nullptr;
  std::optional<DType> same;  // the type whose bits are the stored bits: copied, not rounded
};

/// Decodes rows [first_row, first_row + out's rows). Throws InvalidArgument that names the tensor
/// when they do not fit or `out` is no matrix (or, for one row, vector) of f32, f16 or bf16.
void read_rows(const StoredRows& source, index_t first_row, TensorView out);

}  // namespace spectx::io
