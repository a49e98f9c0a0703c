// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "llama/pre_tokenizer.hpp"

namespace spectx::llama {

/// What tokenizer.ggml.token_type says of a token.
enum class TokenType : std::int32_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

/// What a model file says of its tokenizer. An id of -1 means that there is none.
struct TokenizerConfig {
  std::string model = "gpt2";
  std::string pre = "default";
  std::vector<std::string> tokens;        // in GPT-2's byte alphabet; index = id
  std::vector<std::string> merges;        // "left right", best first
  std::vector<std::int32_t> token_types;  // one a token, or empty: all normal
  std::int32_t bos = -1;
  std::int32_t eos = -1;
  std::int32_t eot = -1;  // end of a turn, where it is not eos
  std::int32_t unknown = -1;
  bool add_bos = false;
  std::string chat_template;
};

struct EncodeOptions {
  bool add_bos = true;         // put BOS in front where the model wants one and the text has none
  bool parse_special = false;  // control tokens may be written in the text (a rendered chat)
};

/// Byte-level BPE as a GGUF file describes it. Immutable and thread-safe.
///
/// Text without `parse_special` never gives a control token. decode(encode(text)) == text for any
/// bytes, UTF-8 or not, that the vocabulary has tokens for; a byte that it has none for becomes
/// U+FFFD (nothing, if that has no tokens either).
class Tokenizer {
 public:
  /// Throws Unsupported for a model other than "gpt2" or an unknown pre-tokenizer, FileError for
  /// metadata that contradict themselves.
  explicit Tokenizer(TokenizerConfig config);

  /// O(n log n) in the bytes of the longest word; every distinct short word is merged once a call.
  std::vector<std::int32_t> encode(std::string_view text, EncodeOptions options = {}) const;
  /// The bytes of the tokens, control tokens by name. Throws InvalidArgument for an unknown id.
  std::string decode(std::span<const std::int32_t> ids) const;
  const std::string& text_of(std::int32_t id) const;

  /// Whether a model that says `id` has finished its answer.
  bool ends_text(std::int32_t id) const;
  bool is_control(std::int32_t id) const;
  std::int32_t num_tokens() const noexcept { return static_cast<std::int32_t>(text_.size()); }
  const TokenizerConfig& config() const noexcept { return config_; }

 private:
  struct Merge {
    std::int32_t rank = 0;
    std::int32_t result = 0;
  };
  struct Special {
    std::string_view text;  // of text_
    std::int32_t id = 0;
  };
  using Ids = std::vector<std::int32_t>;

  void read_tokens();
  void read_merges();
  void add_merge(const std::unordered_map<std::string_view, std::int32_t>& ids, std::size_t rank);
  const Special* special_at(std::string_view text, bool with_control) const;
  void encode_plain(std::string_view text, Ids& ids) const;
  void encode_word(std::string_view word, Ids& ids) const;
  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  bool is_text(std::int32_t id) const;
  TokenType type_of(std::int32_t id) const;

  TokenizerConfig config_;
  PreTokenizer pre_;
  std::vector<std::string> text_;           // bytes of each token
  std::array<std::int32_t, 256> byte_ids_;  // -1: the vocabulary lacks the byte
  std::unordered_map<std::uint64_t, Merge> merges_;
  std::unordered_map<std::string_view, std::int32_t> whole_words_;
  std::vector<Special> specials_;  // sorted by text
  std::array<bool, 256> starts_special_{};
  Ids replacement_;  // tokens of U+FFFD
};

/// Turns tokens into text as they come, holding back the bytes of a character that is not whole
/// yet.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  /// The text that is certain after `id`.
  std::string push(std::int32_t id);
  /// What is still held back; the decoder starts anew.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  std::string held_;  // less than one character
};

}  // namespace spectx::llama
