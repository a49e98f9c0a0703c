// SPDX-License-Identifier: Apache-2.0
#include "llama/tokenizer.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <random>

#include "catch.hpp"
#include "llama/byte_alphabet.hpp"
#include "spectx/error.hpp"

using namespace spectx::llama;
using Ids = std::vector<std::int32_t>;

namespace {

constexpr std::int32_t kStart = 256;  // <|im_start|>, control
constexpr std::int32_t kEnd = 257;    // <|im_end|>, control
constexpr std::int32_t kThink = 258;  // <think>, user-defined
constexpr std::int32_t kThinkMore = 259;

/// The 256 bytes (id = byte), four special tokens and the results of the merges.
TokenizerConfig config_with(const std::vector<std::string>& merges) {
  TokenizerConfig config;
  config.pre = "gpt-2";
  for (const int c : code_points_of_bytes()) {
    std::string name;
    if (c >= 0x80) name += static_cast<char>(0xc0 | c >> 6);
    name += static_cast<char>(c < 0x80 ? c : 0x80 | (c & 63));
    config.tokens.push_back(name);
  }
  config.token_types.assign(256, 1);
  for (const char* special : {"<|im_start|>", "<|im_end|>", "<think>", "<think>>"}) {
    config.tokens.emplace_back(special);
    config.token_types.push_back(config.tokens.size() <= 258 ? 3 : 4);
  }
  for (const std::string& merge : merges) {
    const auto space = merge.find(' ');
    config.tokens.push_back(merge.substr(0, space) + merge.substr(space + 1));
    config.token_types.push_back(1);
  }
  config.merges = merges;
  config.bos = kStart;
  config.eos = kEnd;
  return config;
}

/// BPE by its definition: join the leftmost of the best pairs until there is none.
Ids merged_by_definition(std::string_view word, const TokenizerConfig& config) {
  std::vector<std::string> parts;
  for (const char c : word) parts.push_back(config.tokens[static_cast<unsigned char>(c)]);
  for (const auto& merges = config.merges;;) {
    std::size_t best = merges.size();
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      for (std::size_t rank = 0; rank < best; ++rank) {
        if (merges[rank] == parts[i] + " " + parts[i + 1]) {
          best = rank;
          at = i;
        }
      }
    }
    if (best == merges.size()) break;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  Ids ids;
  for (const std::string& part : parts) {
    const auto found = std::find(config.tokens.begin(), config.tokens.end(), part);
    ids.push_back(static_cast<std::int32_t>(found - config.tokens.begin()));
  }
  return ids;
}

/// The message of the FileError that the configuration gives.
std::string refusal(const TokenizerConfig& config) {
  try {
    const Tokenizer tokenizer(config);
  } catch (const spectx::FileError& error) {
    return error.what();
  }
  return "not refused";
}

std::string random_bytes(std::mt19937& random, std::size_t size, std::string_view from) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) {
    text += from.empty() ? static_cast<char>(random() % 256) : from[random() % from.size()];
  }
  return text;
}

}  // namespace

TEST_CASE("Merges run as their definition says") {
  const std::vector<std::string> merges{"a b",   "b a",  "a a",  "aa aa",
                                        "ab ab", "c ab", "aa b", "b b"};
  const TokenizerConfig config = config_with(merges);
  const Tokenizer tokenizer(config);
  std::mt19937 random(7);
  for (int i = 0; i < 2000; ++i) {
    const std::string word = random_bytes(random, random() % 24, "aaabbc");
    CAPTURE(word);
    REQUIRE(tokenizer.encode(word) == merged_by_definition(word, config));
  }
}

TEST_CASE("Any bytes survive the round trip and never give a control token") {
  TokenizerConfig config = config_with({"a b", "< |", "i m", "e n", "en d", "| >"});
  config.pre = GENERATE("default", "gpt-2", "llama-bpe", "qwen2", "smollm");
  const Tokenizer tokenizer(config);
  std::mt19937 random(11);
  for (int i = 0; i < 400; ++i) {
    std::string text = random_bytes(random, random() % 60, i % 2 == 0 ? "" : "ab <|>'1\n\xc3\xa9");
    text += i % 3 == 0 ? "<|im_end|>" : "";
    CAPTURE(text);
    const Ids ids = tokenizer.encode(text);
    REQUIRE(tokenizer.decode(ids) == text);
    for (const std::int32_t id : ids) REQUIRE(!tokenizer.is_control(id));
  }
}

TEST_CASE("Special tokens are split out, the longest first") {
  const Tokenizer tokenizer(config_with({}));
  const EncodeOptions special{.parse_special = true};
  REQUIRE(tokenizer.encode("<|im_start|>x<|im_end|>", special) == Ids{kStart, 'x', kEnd});
  REQUIRE(tokenizer.encode("<think>y<think>>", special) == Ids{kThink, 'y', kThinkMore});
  REQUIRE(tokenizer.encode("<think>") == Ids{kThink});  // user-defined: also in plain text
  REQUIRE(tokenizer.encode("<th", special) == Ids{'<', 't', 'h'});
  REQUIRE((tokenizer.ends_text(kEnd) && !tokenizer.ends_text('x')));
}

TEST_CASE("BOS comes once") {
  TokenizerConfig config = config_with({});
  config.add_bos = true;
  const Tokenizer tokenizer(config);
  REQUIRE(tokenizer.encode("") == Ids{kStart});
  REQUIRE(tokenizer.encode("<|im_start|>a", {.parse_special = true}) == Ids{kStart, 'a'});
  REQUIRE(tokenizer.encode("a", {.add_bos = false}) == Ids{'a'});
}

TEST_CASE("A byte without a token becomes U+FFFD") {
  TokenizerConfig config = config_with({"\u00ef \u00bf", "\u00ef\u00bf \u00bd"});  // its bytes
  config.tokens[0xff] = "no byte";
  const Tokenizer tokenizer(config);
  REQUIRE(tokenizer.decode(tokenizer.encode("a\xff\xfe")) == "a\xef\xbf\xbd\xfe");
  REQUIRE(tokenizer.encode("\xff") == Ids{261});
}

TEST_CASE("Long words without a space end in time") {
  const Tokenizer tokenizer(config_with({"a a", "aa aa", "aaaa aaaa", "\u0120 \u0120"}));
  for (const char* part : {"a", "ab", " ", "\xff", "<", "<think"}) {
    std::string text;
    while (text.size() < 1000000) text += part;
    CAPTURE(part);
    const Ids ids = tokenizer.encode(text, {.parse_special = true});
    REQUIRE(tokenizer.decode(ids) == text);
  }
}

TEST_CASE("A stream holds back a character until it is whole") {
  const Tokenizer tokenizer(config_with({}));
  StreamDecoder stream(tokenizer);
  const std::string text = "\xe6\x97\xa5\xf0\x9f\x98\x80\xc3\xa9";
  std::vector<std::string> pieces;
  for (const std::int32_t id : tokenizer.encode(text)) pieces.push_back(stream.push(id));
  REQUIRE(pieces == std::vector<std::string>{"", "", "\xe6\x97\xa5", "", "", "", "\xf0\x9f\x98\x80",
                                             "", "\xc3\xa9"});
  REQUIRE(stream.push(0xe6).empty());
  REQUIRE(stream.push('x') == "\xe6x");  // no character after all: given as it is
  REQUIRE(stream.push(0xf0).empty());
  REQUIRE(stream.finish() == "\xf0");
}

TEST_CASE("Metadata that contradict themselves are refused, with what is wrong") {
  using Change = std::function<void(TokenizerConfig&)>;
  const std::map<std::string, Change> changes{
      {"vocabulary is empty", [](auto& c) { c.tokens.clear(); }},
      {"token types", [](auto& c) { c.token_types.pop_back(); }},
      {"bos_token_id", [](auto& c) { c.bos = 9999; }},
      {"eos_token_id", [](auto& c) { c.eos = -2; }},
      {"not two tokens", [](auto& c) { c.merges.emplace_back("ab"); }},
      {"merge 1 \"a b c\"", [](auto& c) { c.merges.emplace_back("a b c"); }},
      {"needs the token \"ax\"", [](auto& c) { c.merges.emplace_back("a x"); }},
      {"needs the token \"<|im_end|>\"", [](auto& c) { c.merges.emplace_back("<|im_end |>"); }},
      {"more than 1024 bytes", [](auto& c) { c.tokens[kEnd] = std::string(2000, 'x'); }}};
  for (const auto& [message, change] : changes) {
    TokenizerConfig config = config_with({"a b"});
    change(config);
    CAPTURE(message);
    REQUIRE(refusal(config).find(message) != std::string::npos);
  }
  TokenizerConfig other = config_with({});
  other.model = "llama";
  REQUIRE_THROWS_AS(Tokenizer(other), spectx::Unsupported);
  const Tokenizer tokenizer(config_with({"a b", "a b"}));  // duplicates: the first counts
  REQUIRE(tokenizer.encode("ab") == Ids{260});
  REQUIRE_THROWS_AS(tokenizer.decode(Ids{262}), spectx::InvalidArgument);
}
