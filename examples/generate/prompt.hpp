// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "generate/options.hpp"
#include "llama/tokenizer.hpp"

namespace spectx::generate {

struct Prompt {
  std::vector<std::int32_t> tokens;
  index_t num_cut = 0;  // tokens that --truncate left out
};

/// The prompt's text, from where the options say. Throws Error when it cannot be read or is empty.
std::string read_prompt(const Options& options);

/// Its tokens, which with the ones to generate fit into the model's context. Throws Error when they
/// do not.
Prompt tokenize(const llama::Tokenizer& tokenizer, const std::string& text, const Options& options,
                index_t context_length);

}  // namespace spectx::generate
