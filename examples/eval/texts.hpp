// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "llama/tokenizer.hpp"
#include "spectx/types.hpp"

namespace spectx::eval {

struct Text {
  std::string name;  // of its file
  std::vector<std::int32_t> tokens;
};

/// The files named, and those in the folders named, in order of their names; as tokens. Throws
/// FileError for what is not there, cannot be read or is not UTF-8.
std::vector<Text> read_texts(const std::vector<std::string>& paths,
                             const llama::Tokenizer& tokenizer);

/// The first `most` texts of at least `tokens` tokens (0: all of them). Throws InvalidArgument that
/// says how long the longest is when there is none.
std::vector<const Text*> long_texts(const std::vector<Text>& texts, index_t tokens, index_t most);

}  // namespace spectx::eval
