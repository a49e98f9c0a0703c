// SPDX-License-Identifier: Apache-2.0
#include "generate/prompt.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <span>

#include "llama/chat.hpp"
#include "spectx/error.hpp"
#include "support/text_file.hpp"

namespace spectx::generate {
namespace {

using Ids = std::vector<std::int32_t>;

Ids encode(const llama::Tokenizer& tokenizer, const std::string& text, bool is_chat) {
  if (!is_chat) return tokenizer.encode(text);
  const llama::ChatFormat format(tokenizer.config().chat_template);
  const llama::ChatMessage message{.role = "user", .content = text};
  return tokenizer.encode(format.render({&message, 1}), {.parse_special = true});
}

/// A plain prompt loses its first tokens, but keeps the one that begins every text.
Ids cut_plain(const llama::Tokenizer& tokenizer, const Ids& tokens, std::size_t room) {
  const std::int32_t bos = tokenizer.config().bos;
  const bool has_bos = bos >= 0 && tokens.front() == bos;
  Ids kept(tokens.end() - static_cast<std::ptrdiff_t>(room), tokens.end());
  if (has_bos) kept.front() = bos;
  return kept;
}

/// A chat loses the first tokens of what the user says, so that the template stays whole.
Ids cut_chat(const llama::Tokenizer& tokenizer, const std::string& text, std::size_t room) {
  const Ids content = tokenizer.encode(text, {.add_bos = false});
  std::size_t left_out = 0;
  Ids tokens = encode(tokenizer, text, true);
  while (tokens.size() > room) {
    left_out += tokens.size() - room;  // joined anew, the rest may have other tokens: look again
    if (left_out >= content.size()) {
      throw InvalidArgument("--max-tokens leaves no room for the prompt: pass fewer");
    }
    tokens = encode(tokenizer, tokenizer.decode(std::span(content).subspan(left_out)), true);
  }
  return tokens;
}

}  // namespace

std::string read_prompt(const Options& options) {
  std::string text;
  if (options.prompt) {
    text = *options.prompt;
  } else if (options.prompt_file) {
    text = support::read_text_file(*options.prompt_file);
  } else {
    if (::isatty(STDIN_FILENO) == 1) {
      std::fputs("spectx-generate: type the prompt, then Ctrl-D\n", stderr);
    }
    text = support::read_text(stdin, "standard input");
  }
  if (text.empty()) {
    throw InvalidArgument(
        "the prompt is empty: pass --prompt TEXT, --prompt-file FILE or write it to standard "
        "input");
  }
  return text;
}

Prompt tokenize(const llama::Tokenizer& tokenizer, const std::string& text, const Options& options,
                index_t context_length) {
  if (options.is_chat && tokenizer.config().chat_template.empty()) {
    throw InvalidArgument("the model has no chat template: leave out --chat");
  }
  const std::string context = "the model's context of " + std::to_string(context_length);
  if (options.max_tokens >= context_length) {
    throw InvalidArgument("--max-tokens " + std::to_string(options.max_tokens) +
                          " leaves no room for a prompt in " + context + ": pass fewer");
  }
  Prompt prompt{.tokens = encode(tokenizer, text, options.is_chat)};
  const std::size_t whole = prompt.tokens.size();
  const auto room = static_cast<std::size_t>(context_length - options.max_tokens);
  if (whole == 0) throw InvalidArgument("the prompt has no tokens in this model's vocabulary");
  if (whole <= room) return prompt;
  if (!options.truncates) {
    throw InvalidArgument("the prompt has " + std::to_string(whole) + " tokens, which with " +
                          std::to_string(options.max_tokens) + " to generate do not fit into " +
                          context + ": pass --truncate to keep its end, or fewer --max-tokens");
  }
  prompt.tokens =
      options.is_chat ? cut_chat(tokenizer, text, room) : cut_plain(tokenizer, prompt.tokens, room);
  prompt.num_cut = static_cast<index_t>(whole - prompt.tokens.size());
  return prompt;
}

}  // namespace spectx::generate
