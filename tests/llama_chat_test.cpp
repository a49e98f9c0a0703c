// SPDX-License-Identifier: Apache-2.0
#include "llama/chat.hpp"

#include <vector>

#include "catch.hpp"
#include "spectx/error.hpp"

using spectx::llama::ChatFormat;
using spectx::llama::ChatMessage;

TEST_CASE("ChatML has the system prompt of its template where the conversation has none") {
  const ChatFormat with_default(
      "{{ '<|im_start|>system\\n' + m.content }}"
      "{{ '<|im_start|>system\\nIt\\'s a \\\"bot\\\".\\nHi<|im_end|>\\n' }}");
  const std::vector<ChatMessage> asked{{"user", " Hi "}};
  REQUIRE(with_default.render(asked) ==
          "<|im_start|>system\nIt's a \"bot\".\nHi<|im_end|>\n"
          "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n");
  const std::vector<ChatMessage> told{{"system", "S"}, {"user", "U"}};
  REQUIRE(with_default.render(told, false) ==
          "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n");
  const ChatFormat bare("{{ '<|im_start|>' + m['role'] }}");
  REQUIRE(bare.render(asked, false) == "<|im_start|>user\n Hi <|im_end|>\n");
}

TEST_CASE("Llama 3 has headers, trimmed turns and the dates of 3.1") {
  const std::vector<ChatMessage> messages{{"user", " U\n"}, {"assistant", "A"}};
  const std::string turns =
      "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
      "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>";
  const ChatFormat plain("{{ bos_token }}{{ '<|start_header_id|>' + m['role'] }}");
  REQUIRE(plain.render(messages, false) == "<|begin_of_text|>" + turns);
  REQUIRE(plain.render(messages) ==
          "<|begin_of_text|>" + turns + "<|start_header_id|>assistant<|end_header_id|>\n\n");
  const ChatFormat dated(
      "{{- bos_token }}{%- set date_string = \"26 Jul 2024\" %}"
      "{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}"
      "{{- \"Cutting Knowledge Date: December 2023\\n\" }}");
  REQUIRE(dated.render(messages, false) ==
          "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
          "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>" +
              turns);
}

TEST_CASE("What cannot be rendered is refused") {
  REQUIRE_THROWS_AS(ChatFormat(""), spectx::Unsupported);
  REQUIRE_THROWS_AS(ChatFormat("[INST] {{ content }} [/INST]"), spectx::Unsupported);
  REQUIRE_THROWS_AS(ChatFormat("<|im_start|>").render({}), spectx::InvalidArgument);
}

TEST_CASE("A template that is cut off or has no end is read to its end") {
  const std::vector<ChatMessage> asked{{"user", "U"}};
  for (const char* jinja : {"<|im_start|>system\\n", "'<|im_start|>system\\nabc\\",
                            "'<|im_start|>system\nabc'<|im_end|>"}) {
    CAPTURE(jinja);
    REQUIRE(ChatFormat(jinja).render(asked, false) == "<|im_start|>user\nU<|im_end|>\n");
  }
}
