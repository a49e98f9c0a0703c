// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/io/dequantize.hpp"

namespace spectx::io {

/// Decodes `num_blocks` blocks; neither pointer needs more alignment than its type.
using BlockDecoder = void (*)(const std::byte* blocks, index_t num_blocks, float* out);

/// Null for a type that cannot be decoded.
BlockDecoder block_decoder(GgmlType type) noexcept;

}  // namespace spectx::io
