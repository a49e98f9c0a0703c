// SPDX-License-Identifier: Apache-2.0
// SmolLM2-135M-Instruct.Q4_1.gguf, by its path in SPECTX_TEST_MODEL, against transformers.
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "llama/chat.hpp"
#include "llama/tokenizer_config.hpp"

using namespace spectx::llama;
using Ids = std::vector<std::int32_t>;

namespace {

TokenizerConfig model_config() {
  const char* path = std::getenv("SPECTX_TEST_MODEL");
  REQUIRE(path != nullptr);
  return tokenizer_config(spectx::io::Gguf(path));
}

nlohmann::json golden() {
  std::ifstream file(SPECTX_TEST_DATA "/golden_tokens.json");
  return nlohmann::json::parse(file);
}

}  // namespace

TEST_CASE("Tokens are those of transformers") {
  const Tokenizer tokenizer(model_config());
  const auto cases = golden().at("cases");
  REQUIRE(cases.size() > 100);
  for (const auto& expected : cases) {
    const auto text = expected.at("text").get<std::string>();
    CAPTURE(text);
    const Ids special = tokenizer.encode(text, {.parse_special = true});
    REQUIRE(special == expected.at("special").get<Ids>());
    REQUIRE(tokenizer.encode(text) == expected.at("plain").get<Ids>());
    REQUIRE(tokenizer.decode(special) == text);
  }
}

TEST_CASE("A long document survives the round trip") {
  const Tokenizer tokenizer(model_config());
  std::ifstream file(SPECTX_TEST_DATA "/held_out.txt", std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const Ids ids = tokenizer.encode(text);
  REQUIRE(ids.size() == 4598);  // as transformers counts
  REQUIRE(tokenizer.decode(ids) == text);
}

TEST_CASE("Conversations are those of the model's template") {
  const ChatFormat format(model_config().chat_template);
  const auto chats = golden().at("chats");
  REQUIRE(chats.size() == 8);
  for (const auto& chat : chats) {
    std::vector<ChatMessage> messages;
    for (const auto& message : chat.at("messages")) {
      messages.push_back({message.at("role"), message.at("content")});
    }
    REQUIRE(format.render(messages, chat.at("opens_answer")) == chat.at("text"));
  }
}
