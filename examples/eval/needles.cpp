// SPDX-License-Identifier: Apache-2.0
#include "eval/needles.hpp"

#include <algorithm>
#include <array>
#include <random>
#include <string>

#include "spectx/error.hpp"

namespace spectx::eval {
namespace {

constexpr std::array<const char*, kMostNeedles> kCities = {
    "Lisbon", "Oslo",   "Madrid", "Vienna", "Dublin", "Athens", "Berlin",
    "Prague", "Warsaw", "Rome",   "Geneva", "Naples", "Munich", "Zurich",
    "Lyon",   "Tokyo",  "Delhi",  "Cairo",  "Lima",   "Boston"};

}  // namespace

Haystack make_haystack(std::span<const std::int32_t> text, index_t length, index_t count,
                       const llama::Tokenizer& tokenizer, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto encode = [&](const std::string& part) {
    return tokenizer.encode(part, {.add_bos = false});
  };
  Haystack haystack;
  std::vector<std::vector<std::int32_t>> sentences;
  std::size_t hidden = 0;
  std::size_t asked = 0;
  for (index_t n = 0; n < count; ++n) {
    const std::string fact =
        "The secret code of " + std::string(kCities[static_cast<std::size_t>(n)]) + " is";
    const std::string answer = " " + std::to_string(10000 + random() % 90000);
    sentences.push_back(encode("\n\n" + fact + answer + ".\n\n"));
    haystack.needles.push_back(
        {(static_cast<double>(n) + 0.5) / static_cast<double>(count),
         encode("\n\nQuestion: What is the secret code of " +
                std::string(kCities[static_cast<std::size_t>(n)]) + "?\nAnswer: " + fact),
         encode(answer)});
    const Needle& needle = haystack.needles.back();
    hidden += sentences.back().size();
    asked = std::max(asked, needle.question.size() + needle.answer.size());
    expects(static_cast<index_t>(needle.answer.size()) <= kMostAnswerTokens,
            "needles: the model's vocabulary has no tokens for numbers");
  }
  const index_t rest = length - static_cast<index_t>(hidden + asked);
  if (rest < count) {
    throw InvalidArgument(std::to_string(count) + " needles do not fit into " +
                          std::to_string(length) + " tokens: pass fewer --needles");
  }
  index_t taken = 0;
  for (std::size_t n = 0; n < sentences.size(); ++n) {
    const auto end = static_cast<index_t>(haystack.needles[n].depth * static_cast<double>(rest));
    haystack.tokens.insert(haystack.tokens.end(), text.begin() + taken, text.begin() + end);
    haystack.tokens.insert(haystack.tokens.end(), sentences[n].begin(), sentences[n].end());
    taken = end;
  }
  haystack.tokens.insert(haystack.tokens.end(), text.begin() + taken, text.begin() + rest);
  return haystack;
}

}  // namespace spectx::eval
