// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace spectx::llama {

/// One turn of a conversation.
struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

/// Writes conversations the way a model was taught, for the two families of templates that
/// Llama-like models use: ChatML and Llama 3's headers. What a template says of its own (a default
/// system prompt, the dates of Llama 3.1) is read out of it; it is not run. Immutable and
/// thread-safe.
class ChatFormat {
 public:
  /// @param jinja  tokenizer.chat_template of a GGUF file. Throws Unsupported for another family.
  explicit ChatFormat(std::string_view jinja);

  /// The text to encode with `parse_special`; with `opens_answer` it ends where the model goes on.
  /// Throws InvalidArgument without messages.
  std::string render(std::span<const ChatMessage> messages, bool opens_answer = true) const;

 private:
  enum class Family { chat_ml, llama3 };

  Family family_ = Family::chat_ml;
  std::string default_system_;  // ChatML: said where the conversation has no system turn
  std::string dates_;           // Llama 3.1: in front of every system prompt
  std::string begin_;           // Llama 3: the first token's name, where the template writes it
};

}  // namespace spectx::llama
