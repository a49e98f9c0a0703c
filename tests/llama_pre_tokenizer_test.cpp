// SPDX-License-Identifier: Apache-2.0
#include "llama/pre_tokenizer.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "catch.hpp"
#include "spectx/error.hpp"

using spectx::llama::PreTokenizer;

namespace {

std::string joined(const std::vector<std::string_view>& words) {
  std::string text;
  for (const std::string_view word : words) text += word;
  return text;
}

}  // namespace

TEST_CASE("Text is split as the package tokenizers splits it") {
  std::ifstream file(SPECTX_TEST_DATA "/golden_splits.json");
  const auto golden = nlohmann::json::parse(file);
  const auto strings = golden.at("strings").get<std::vector<std::string>>();
  REQUIRE(golden.at("splits").size() == 5);
  for (const auto& [name, splits] : golden.at("splits").items()) {
    const PreTokenizer pre(name);
    REQUIRE(splits.size() == strings.size());
    for (std::size_t i = 0; i < strings.size(); ++i) {
      CAPTURE(name, strings[i]);
      std::vector<std::size_t> bytes;
      for (const std::string_view word : pre.split(strings[i])) bytes.push_back(word.size());
      REQUIRE(bytes == splits[i].get<std::vector<std::size_t>>());
    }
  }
}

TEST_CASE("Bytes that are not UTF-8 are words of their own, and no byte is lost") {
  using Words = std::vector<std::string_view>;
  const PreTokenizer pre("smollm");
  REQUIRE(pre.split("").empty());
  REQUIRE(pre.split("ab\xff\xfe cd") == Words{"ab", "\xff\xfe", " cd"});
  REQUIRE(pre.split("\xc3") == Words{"\xc3"});
  REQUIRE(pre.split("\xed\xa0\x80z") == Words{"\xed\xa0\x80", "z"});  // a surrogate
  REQUIRE(pre.split("\xc0\xaf\xf4\x90\x80\x80") == Words{"\xc0\xaf\xf4\x90\x80\x80"});
  REQUIRE(pre.split("\xf0\x9f\x98\x80") == Words{"\xf0\x9f\x98\x80"});
}

TEST_CASE("A long run of one kind of character is split without a limit") {
  const auto name = GENERATE("default", "gpt-2", "llama-bpe", "qwen2", "smollm");
  const PreTokenizer pre(name);
  for (const char* part : {"a", " ", "\n", "1", "!", "'", "\xff", "a\xff", " \n", "\xe6\x97\xa5"}) {
    CAPTURE(name, part);
    std::string text;
    while (text.size() < 400000) text += part;
    REQUIRE(joined(pre.split(text + "x")) == text + "x");
  }
}

TEST_CASE("An unknown pre-tokenizer is refused with the known ones named") {
  try {
    const PreTokenizer pre("tekken");
    FAIL("tekken is not known");
  } catch (const spectx::Unsupported& error) {
    const std::string message = error.what();
    for (const char* part : {"tekken", "default", "gpt-2", "llama-bpe", "qwen2", "smollm"}) {
      REQUIRE(message.find(part) != std::string::npos);
    }
  }
}
