// SPDX-License-Identifier: Apache-2.0
#include "llama/tokenizer.hpp"

#include <algorithm>
#include <limits>
#include <queue>
#include <tuple>
#include <utility>

#include "llama/byte_alphabet.hpp"
#include "llama/utf8.hpp"
#include "spectx/error.hpp"

namespace spectx::llama {
namespace {

constexpr std::size_t kMaxSpecialBytes = 1024;  // bounds the search for special tokens
constexpr std::size_t kMaxCachedBytes = 64;     // longer words rarely come twice

std::string quoted(std::string_view token) {
  return "\"" + std::string(token.substr(0, 60)) + "\"";
}

void check_id(const char* name, std::int32_t id, std::size_t tokens) {
  if (id != -1 && (id < 0 || static_cast<std::size_t>(id) >= tokens)) {
    throw FileError("tokenizer: " + std::string(name) + " is " + std::to_string(id) +
                    ", outside of the " + std::to_string(tokens) + " tokens");
  }
}

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

Tokenizer::Tokenizer(TokenizerConfig config) : config_(std::move(config)), pre_(config_.pre) {
  if (config_.model != "gpt2") {
    throw Unsupported("tokenizer: the model \"" + config_.model +
                      "\" is not known; known is gpt2 (byte-level BPE)");
  }
  const std::size_t tokens = config_.tokens.size();
  const auto limit = static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max());
  if (tokens == 0) throw FileError("tokenizer: the vocabulary is empty");
  if (tokens > limit || config_.merges.size() > limit) {
    throw FileError("tokenizer: the vocabulary has more than 2^31 entries");
  }
  if (!config_.token_types.empty() && config_.token_types.size() != tokens) {
    throw FileError("tokenizer: " + std::to_string(tokens) + " tokens, but " +
                    std::to_string(config_.token_types.size()) + " token types");
  }
  check_id("bos_token_id", config_.bos, tokens);
  check_id("eos_token_id", config_.eos, tokens);
  check_id("eot_token_id", config_.eot, tokens);
  check_id("unknown_token_id", config_.unknown, tokens);
  read_tokens();
  read_merges();
  encode_word("\xef\xbf\xbd", replacement_);
  if (std::find(replacement_.begin(), replacement_.end(), -1) != replacement_.end()) {
    replacement_.clear();
  }
}

void Tokenizer::read_tokens() {
  const auto alphabet = bytes_of_code_points();
  text_.reserve(config_.tokens.size());
  for (std::size_t i = 0; i < config_.tokens.size(); ++i) {
    const std::string& token = config_.tokens[i];
    const auto id = static_cast<std::int32_t>(i);
    const bool is_special = !is_text(id) || type_of(id) == TokenType::user_defined;
    text_.push_back(is_special ? token : from_alphabet(token, alphabet));
    if (is_special && token.size() > kMaxSpecialBytes) {
      throw FileError("tokenizer: special token " + std::to_string(id) + " has more than " +
                      std::to_string(kMaxSpecialBytes) + " bytes");
    }
    if (is_special && !token.empty()) specials_.push_back({{}, id});
  }
  for (Special& special : specials_) {
    special.text = text_of(special.id);
    starts_special_[static_cast<unsigned char>(special.text.front())] = true;
  }
  std::sort(specials_.begin(), specials_.end(), [](const Special& a, const Special& b) {
    return std::tie(a.text, a.id) < std::tie(b.text, b.id);
  });
}

void Tokenizer::read_merges() {
  std::unordered_map<std::string_view, std::int32_t> ids;
  ids.reserve(config_.tokens.size());
  for (std::int32_t id = 0; id < num_tokens(); ++id) {
    if (is_text(id)) ids.emplace(config_.tokens[static_cast<std::size_t>(id)], id);
  }
  const auto code_points = code_points_of_bytes();
  for (std::size_t b = 0; b < 256; ++b) {
    const auto c = static_cast<unsigned>(code_points[b]);
    std::string name;
    if (c >= 0x80) name += static_cast<char>(0xc0U | c >> 6);
    name += static_cast<char>(c < 0x80 ? c : 0x80U | (c & 63U));
    const auto found = ids.find(name);
    byte_ids_[b] = found == ids.end() ? -1 : found->second;
  }
  merges_.reserve(config_.merges.size());
  for (std::size_t rank = 0; rank < config_.merges.size(); ++rank) add_merge(ids, rank);
  if (!pre_.takes_whole_words()) return;
  for (const auto& [name, id] : ids) {
    if (type_of(id) != TokenType::user_defined) whole_words_.emplace(text_of(id), id);
  }
}

void Tokenizer::add_merge(const std::unordered_map<std::string_view, std::int32_t>& ids,
                          std::size_t rank) {
  const std::string_view merge = config_.merges[rank];
  const std::size_t space = merge.find(' ');
  if (space == std::string_view::npos || space == 0 || space + 1 == merge.size() ||
      merge.find(' ', space + 1) != std::string_view::npos) {
    throw FileError("tokenizer: merge " + std::to_string(rank) + " " + quoted(merge) +
                    " is not two tokens with a space between them");
  }
  const auto id_of = [&](std::string_view token) {
    const auto found = ids.find(token);
    if (found == ids.end()) {
      throw FileError("tokenizer: merge " + std::to_string(rank) + " " + quoted(merge) +
                      " needs the token " + quoted(token) + ", which the vocabulary lacks");
    }
    return found->second;
  };
  const std::string_view left = merge.substr(0, space);
  const std::string_view right = merge.substr(space + 1);
  const std::int32_t result = id_of(std::string(left) + std::string(right));
  merges_.emplace(key_of(id_of(left), id_of(right)),
                  Merge{static_cast<std::int32_t>(rank), result});
}

const Tokenizer::Merge* Tokenizer::find_merge(std::int32_t left, std::int32_t right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

/// The longest special token at the front of `text`, or null.
const Tokenizer::Special* Tokenizer::special_at(std::string_view text, bool with_control) const {
  const Special* longest = nullptr;
  auto first = specials_.begin();
  auto last = specials_.end();
  for (std::size_t i = 0; i < text.size() && first != last; ++i) {
    const auto before = [i](const Special& a, char c) {
      return a.text.size() <= i ||
             static_cast<unsigned char>(a.text[i]) < static_cast<unsigned char>(c);
    };
    const auto after = [i](char c, const Special& a) {
      return a.text.size() > i &&
             static_cast<unsigned char>(c) < static_cast<unsigned char>(a.text[i]);
    };
    first = std::lower_bound(first, last, text[i], before);
    last = std::upper_bound(first, last, text[i], after);
    for (auto it = first; it != last && it->text.size() == i + 1; ++it) {
      if (!with_control && !is_text(it->id)) continue;
      longest = &*it;
      break;
    }
  }
  return longest;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  expects(text.size() < std::numeric_limits<std::uint32_t>::max(),
          "Tokenizer::encode: the text must be shorter than 4 GiB");
  Ids ids;
  std::size_t plain = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    const Special* special = starts_special_[static_cast<unsigned char>(text[at])]
                                 ? special_at(text.substr(at), options.parse_special)
                                 : nullptr;
    if (special == nullptr) {
      ++at;
      continue;
    }
    encode_plain(text.substr(plain, at - plain), ids);
    ids.push_back(special->id);
    at += special->text.size();
    plain = at;
  }
  encode_plain(text.substr(plain), ids);
  const bool wants_bos = options.add_bos && config_.add_bos && config_.bos >= 0;
  if (wants_bos && (ids.empty() || ids.front() != config_.bos)) {
    ids.insert(ids.begin(), config_.bos);
  }
  return ids;
}

void Tokenizer::encode_plain(std::string_view text, Ids& ids) const {
  // Where the tokens of a word that was met before lie in `ids`.
  std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> met;
  Ids word_ids;
  for (const std::string_view word : pre_.split(text)) {
    const std::size_t begin = ids.size();
    if (const auto found = met.find(word); found != met.end()) {
      const auto [from, to] = found->second;
      for (std::size_t i = from; i < to; ++i) ids.push_back(ids[i]);
      continue;
    }
    word_ids.clear();
    encode_word(word, word_ids);
    for (const std::int32_t id : word_ids) {
      if (id >= 0) {
        ids.push_back(id);
      } else {
        ids.insert(ids.end(), replacement_.begin(), replacement_.end());
      }
    }
    if (word.size() <= kMaxCachedBytes) met.emplace(word, std::pair(begin, ids.size()));
  }
}

/// Appends the word's tokens; -1 for a byte that has none.
void Tokenizer::encode_word(std::string_view word, Ids& ids) const {
  if (const auto found = whole_words_.find(word); found != whole_words_.end()) {
    ids.push_back(found->second);
    return;
  }
  // The word as a doubly linked list of tokens; `at` is the offset of a token's first byte.
  constexpr auto kNone = std::numeric_limits<std::uint32_t>::max();
  struct Symbol {
    std::int32_t id;
    std::uint32_t previous;
    std::uint32_t next;
  };
  struct Candidate {
    std::int32_t rank;
    std::uint32_t at;
    std::int32_t left, right, result;
    bool operator<(const Candidate& other) const {
      return std::tie(rank, at) > std::tie(other.rank, other.at);
    }
  };
  const auto size = static_cast<std::uint32_t>(word.size());
  std::vector<Symbol> symbols(size);
  for (std::uint32_t i = 0; i < size; ++i) {
    symbols[i] = {byte_ids_[static_cast<unsigned char>(word[i])], i == 0 ? kNone : i - 1,
                  i + 1 == size ? kNone : i + 1};
  }
  std::priority_queue<Candidate> queue;
  const auto offer = [&](std::uint32_t at) {
    if (at == kNone || symbols[at].next == kNone) return;
    const std::int32_t left = symbols[at].id;
    const std::int32_t right = symbols[symbols[at].next].id;
    if (const Merge* merge = find_merge(left, right)) {
      queue.push({merge->rank, at, left, right, merge->result});
    }
  };
  for (std::uint32_t i = 0; i < size; ++i) offer(i);
  constexpr std::int32_t kGone = -2;
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.at];
    if (left.id != best.left || left.next == kNone || symbols[left.next].id != best.right) continue;
    Symbol& right = symbols[left.next];
    left.id = best.result;
    left.next = right.next;
    right.id = kGone;
    if (left.next != kNone) symbols[left.next].previous = best.at;
    offer(left.previous);
    offer(best.at);
  }
  for (std::uint32_t i = 0; i < size; i = symbols[i].next) {
    ids.push_back(symbols[i].id);
  }
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) text += text_of(id);
  return text;
}

const std::string& Tokenizer::text_of(std::int32_t id) const {
  expects(id >= 0 && id < num_tokens(), "Tokenizer: the id is not one of the vocabulary");
  return text_[static_cast<std::size_t>(id)];
}

TokenType Tokenizer::type_of(std::int32_t id) const {
  return config_.token_types.empty()
             ? TokenType::normal
             : static_cast<TokenType>(config_.token_types[static_cast<std::size_t>(id)]);
}

bool Tokenizer::is_text(std::int32_t id) const {
  return type_of(id) != TokenType::control && type_of(id) != TokenType::unknown;
}

bool Tokenizer::is_control(std::int32_t id) const {
  expects(id >= 0 && id < num_tokens(), "Tokenizer: the id is not one of the vocabulary");
  return !is_text(id);
}

bool Tokenizer::ends_text(std::int32_t id) const {
  if (id == config_.eos || id == config_.eot) return true;
  const std::string& text = text_of(id);
  return is_control(id) && (text == "<|endoftext|>" || text == "<|im_end|>" ||
                            text == "<|end_of_text|>" || text == "<|eot_id|>");
}

std::string StreamDecoder::push(std::int32_t id) {
  held_ += tokenizer_->text_of(id);
  // A character has at most 4 bytes, so one that is cut begins in the last 3.
  std::size_t whole = held_.size();
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, held_.size()); ++back) {
    if (utf8_front(std::string_view(held_).substr(held_.size() - back)).is_cut) {
      whole = held_.size() - back;
    }
  }
  std::string text = held_.substr(0, whole);
  held_.erase(0, whole);
  return text;
}

std::string StreamDecoder::finish() { return std::exchange(held_, {}); }

}  // namespace spectx::llama
