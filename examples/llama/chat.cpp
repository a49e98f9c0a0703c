// SPDX-License-Identifier: Apache-2.0
#include "llama/chat.hpp"

#include "spectx/error.hpp"

namespace spectx::llama {
namespace {

constexpr std::string_view kChatMlStart = "<|im_start|>";
constexpr std::string_view kChatMlEnd = "<|im_end|>";
constexpr std::string_view kHeaderStart = "<|start_header_id|>";
constexpr std::string_view kHeaderEnd = "<|end_header_id|>\n\n";
constexpr std::string_view kTurnEnd = "<|eot_id|>";

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// The string that a Jinja literal writes, from inside its quotes up to `end`; empty if the literal
/// ends before.
std::string literal_up_to(std::string_view jinja, std::string_view end, char quote) {
  std::string text;
  for (std::size_t i = 0; i < jinja.size(); ++i) {
    if (jinja.substr(i).starts_with(end)) return text;
    if (jinja[i] == quote) break;
    if (jinja[i] == '\\' && i + 1 < jinja.size()) {
      const char escaped = jinja[++i];
      text += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped;
    } else {
      text += jinja[i];
    }
  }
  return {};
}

/// The system prompt that a ChatML template writes itself, or empty.
std::string default_system_of(std::string_view jinja) {
  for (const std::string_view opening : {"<|im_start|>system\\n", "<|im_start|>system\n"}) {
    for (auto at = jinja.find(opening); at != std::string_view::npos;
         at = jinja.find(opening, at + 1)) {
      const char quote = at == 0 ? '\'' : jinja[at - 1];
      std::string text = literal_up_to(jinja.substr(at + opening.size()), kChatMlEnd, quote);
      if (!text.empty()) return text;
    }
  }
  return {};
}

/// What Llama 3.1's template writes in front of every system prompt, or empty.
std::string dates_of(std::string_view jinja) {
  constexpr std::string_view kCutting = "Cutting Knowledge Date: ";
  constexpr std::string_view kToday = "set date_string = \"";
  const auto cutting = jinja.find(kCutting);
  const auto today = jinja.find(kToday);
  if (cutting == std::string_view::npos || today == std::string_view::npos) return {};
  const std::string known_until =
      literal_up_to(jinja.substr(cutting + kCutting.size()), "\\n", '"');
  const std::string date = literal_up_to(jinja.substr(today + kToday.size()), "\"", '\0');
  return std::string(kCutting) + known_until + "\nToday Date: " + date + "\n\n";
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\v\f\r";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

ChatFormat::ChatFormat(std::string_view jinja) {
  if (contains(jinja, kHeaderStart)) {
    family_ = Family::llama3;
    dates_ = dates_of(jinja);
    if (contains(jinja, "bos_token") || contains(jinja, "<|begin_of_text|>")) {
      begin_ = "<|begin_of_text|>";
    }
  } else if (contains(jinja, kChatMlStart)) {
    default_system_ = default_system_of(jinja);
  } else {
    throw Unsupported(jinja.empty()
                          ? "the model has no chat template: give the prompt without --chat"
                          : "the model's chat template is of an unknown family; known are "
                            "ChatML and Llama 3");
  }
}

std::string ChatFormat::render(std::span<const ChatMessage> messages, bool opens_answer) const {
  expects(!messages.empty(), "ChatFormat::render: there must be a message");
  const bool has_system = messages.front().role == "system";
  std::string text;
  const auto say = [&](std::string_view role, std::string_view content) {
    if (family_ == Family::llama3) {
      text.append(kHeaderStart).append(role).append(kHeaderEnd);
      if (role == "system") text += dates_;
      text.append(trimmed(content)).append(kTurnEnd);
    } else {
      text.append(kChatMlStart).append(role).append("\n").append(content);
      text.append(kChatMlEnd).append("\n");
    }
  };
  text += begin_;
  if (!has_system && !(default_system_.empty() && dates_.empty())) say("system", default_system_);
  for (const ChatMessage& message : messages) say(message.role, message.content);
  if (opens_answer && family_ == Family::llama3) {
    text.append(kHeaderStart).append("assistant").append(kHeaderEnd);
  } else if (opens_answer) {
    text.append(kChatMlStart).append("assistant\n");
  }
  return text;
}

}  // namespace spectx::llama
