// SPDX-License-Identifier: Apache-2.0
#include "llama/pre_tokenizer.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "llama/utf8.hpp"
#include "spectx/error.hpp"

namespace spectx::llama {
namespace {

template <auto kFree>
struct Free {
  template <class T>
  void operator()(T* pointer) const noexcept {
    kFree(pointer);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;

// White_Space of Unicode, written out: PCRE2's \s takes U+180E too, which the trainers' do not.
constexpr const char* kSpace = R"(\p{Z}\t-\r\x{85})";

/// The published patterns, with `_` for the inside of a character class of white space.
constexpr const char* kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^_\p{L}\p{N}]+|[_]+(?![^_])|[_]+)";
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^_\p{L}\p{N}]+[\r\n]*)"
    R"(|[_]*[\r\n]+|[_]+(?![^_])|[_]+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^_\p{L}\p{N}]+[\r\n]*)"
    R"(|[_]*[\r\n]+|[_]+(?![^_])|[_]+)";

/// One name of tokenizer.ggml.pre: patterns that are applied one after the other, each to the
/// pieces that the one before left.
struct Known {
  std::string_view name;
  std::array<const char*, 4> patterns;
  bool takes_whole_words;
};

constexpr std::array kKnown = {
    Known{"default", {R"([\p{P}$+<=>^~|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}, false},
    Known{"gpt-2", {kGpt2}, false},
    Known{"gpt2", {kGpt2}, false},
    Known{"llama-bpe", {kLlama3}, true},
    Known{"llama3", {kLlama3}, true},
    Known{"qwen2", {kQwen2}, false},
    Known{"smollm", {R"(\p{N})", kGpt2}, false},
};

const Known& find_known(std::string_view name) {
  std::string names;
  for (const Known& known : kKnown) {
    if (known.name == name) return known;
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  }
  throw Unsupported("tokenizer: the pre-tokenizer \"" + std::string(name) +
                    "\" is not known; known are " + names);
}

std::string message_of(int error) {
  std::array<char, 160> text{};
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text.data()), text.size());
  return text.data();
}

Code compile(std::string_view pattern) {
  std::string expanded;
  for (const char c : pattern) expanded += c == '_' ? std::string(kSpace) : std::string(1, c);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expanded.data()), expanded.size(),
                          PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  if (!code) throw Error("tokenizer: PCRE2 rejects a pattern: " + message_of(error));
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // without a JIT the interpreter serves
  return code;
}

/// Cuts `text`, which is UTF-8, into matches and what lies between them.
void split_by(const pcre2_code* code, pcre2_match_context* context, pcre2_match_data* data,
              std::string_view text, std::vector<std::string_view>& pieces) {
  std::size_t done = 0;
  while (done < text.size()) {
    const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                  done, PCRE2_NO_UTF_CHECK, data, context);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) throw Error("tokenizer: PCRE2 cannot split the text: " + message_of(found));
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data);
    if (span[0] > done) pieces.push_back(text.substr(done, span[0] - done));
    pieces.push_back(text.substr(span[0], span[1] - span[0]));  // no pattern matches nothing
    done = span[1];
  }
  if (done < text.size()) pieces.push_back(text.substr(done));
}

}  // namespace

struct PreTokenizer::Rules {
  std::vector<Code> codes;
  MatchContext context;
  bool takes_whole_words = false;
};

PreTokenizer::PreTokenizer(std::string_view name) : rules_(std::make_unique<Rules>()) {
  const Known& known = find_known(name);
  for (const char* pattern : known.patterns) {
    if (pattern != nullptr) rules_->codes.push_back(compile(pattern));
  }
  rules_->context.reset(pcre2_match_context_create(nullptr));
  if (!rules_->context) throw Error("tokenizer: PCRE2 has no memory for a context");
  // The patterns backtrack over one run of white space at most: linear, however long the run.
  pcre2_set_match_limit(rules_->context.get(), std::numeric_limits<std::uint32_t>::max());
  rules_->takes_whole_words = known.takes_whole_words;
}

PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

bool PreTokenizer::takes_whole_words() const noexcept { return rules_->takes_whole_words; }

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  const MatchData data(pcre2_match_data_create(1, nullptr));
  if (!data) throw Error("tokenizer: PCRE2 has no memory for a match");
  std::vector<std::string_view> words;
  std::vector<std::string_view> pieces;
  std::vector<std::string_view> finer;
  const auto length_of_run = [](std::string_view rest, bool is_valid) {
    std::size_t length = 0;
    while (length < rest.size()) {
      const std::size_t bytes = utf8_front(rest.substr(length)).bytes;
      if ((bytes != 0) != is_valid) break;
      length += is_valid ? bytes : 1;
    }
    return length;
  };
  while (!text.empty()) {
    const std::size_t valid = length_of_run(text, true);
    pieces.assign(valid == 0 ? 0 : 1, text.substr(0, valid));
    for (const Code& code : rules_->codes) {
      finer.clear();
      for (const std::string_view piece : pieces) {
        split_by(code.get(), rules_->context.get(), data.get(), piece, finer);
      }
      std::swap(pieces, finer);
    }
    words.insert(words.end(), pieces.begin(), pieces.end());
    text.remove_prefix(valid);
    const std::size_t invalid = length_of_run(text, false);
    if (invalid != 0) words.push_back(text.substr(0, invalid));
    text.remove_prefix(invalid);
  }
  return words;
}

}  // namespace spectx::llama
