// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string_view>
#include <vector>

namespace spectx::llama {

/// Splits text into the words that byte-pair merges may not cross, by the regular expressions that
/// the model was trained with. Immutable and thread-safe.
class PreTokenizer {
 public:
  /// @param name  tokenizer.ggml.pre of a GGUF file. Throws Unsupported, with the known names.
  explicit PreTokenizer(std::string_view name);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;

  /// The words in order; together they are `text`, byte for byte. A run of bytes that are not UTF-8
  /// is a word of its own.
  std::vector<std::string_view> split(std::string_view text) const;

  /// Whether a word that is itself a token is taken whole, without running its merges.
  bool takes_whole_words() const noexcept;

 private:
  struct Rules;
  std::unique_ptr<Rules> rules_;
};

}  // namespace spectx::llama
