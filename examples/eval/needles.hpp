// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "llama/tokenizer.hpp"
#include "spectx/types.hpp"

namespace spectx::eval {

/// A sentence hidden in a text: what asks for it, and the tokens that answer.
struct Needle {
  double depth = 0;  // place in the text, 0 to 1
  std::vector<std::int32_t> question;
  std::vector<std::int32_t> answer;
};

/// A text with needles in it. The longest question and answer fit behind it.
struct Haystack {
  std::vector<std::int32_t> tokens;
  std::vector<Needle> needles;
};

inline constexpr index_t kMostNeedles = 20;
inline constexpr index_t kMostAnswerTokens = 16;

/// Hides `count` sentences of one form, each with the name of a city and a number of its own, at
/// even depths of the beginning of a text, so that with the longest question and answer it has
/// `length` tokens. @param seed  of the numbers. Throws InvalidArgument when they do not fit.
Haystack make_haystack(std::span<const std::int32_t> text, index_t length, index_t count,
                       const llama::Tokenizer& tokenizer, std::uint64_t seed);

}  // namespace spectx::eval
