// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "llama/tokenizer.hpp"
#include "spectx/io/gguf.hpp"

namespace spectx::llama {

/// The tokenizer.* metadata of a model file. Throws FileError when they are missing or malformed.
TokenizerConfig tokenizer_config(const io::Gguf& file);

}  // namespace spectx::llama
