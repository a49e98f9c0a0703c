// SPDX-License-Identifier: Apache-2.0
#include "llama/config.hpp"

#include <cmath>
#include <limits>
#include <string>

#include "spectx/io/gguf_rope.hpp"

namespace spectx::llama {
namespace {

/// A file's text as part of a one-line message.
std::string quoted(std::string text) {
  constexpr std::size_t kMost = 40;
  for (char& c : text) c = c >= ' ' && c <= '~' ? c : '?';
  return '"' + (text.size() > kMost ? text.substr(0, kMost) + "..." : text) + '"';
}

/// The keys of one file's architecture, checked as they are read.
class Keys {
 public:
  Keys(const io::Gguf& file, const std::string& architecture)
      : file_(file), prefix_(architecture + ".") {}

  bool has(const std::string& key) const { return file_.has(prefix_ + key); }

  index_t count(const std::string& key) const { return checked(key, whole(key)); }
  index_t whole(const std::string& key) const { return file_.get<std::int64_t>(prefix_ + key); }
  index_t tokens(const std::string& key) const {
    const index_t value = whole(key);
    if (value < 1 || value > std::numeric_limits<std::int32_t>::max()) {
      fail(prefix_ + key + " is " + std::to_string(value) + ", no possible number of tokens");
    }
    return value;
  }
  index_t count_or(const std::string& key, index_t otherwise) const {
    return has(key) ? count(key) : otherwise;
  }
  float positive(const std::string& key) const {
    const auto value = file_.get<float>(prefix_ + key);
    if (!std::isfinite(value) || value <= 0) fail(prefix_ + key + " must be a positive number");
    return value;
  }
  [[noreturn]] void fail(const std::string& reason) const {
    throw FileError(file_.path() + ": " + reason);
  }
  [[noreturn]] void unsupported(const std::string& what) const {
    throw Unsupported(file_.path() + ": " + what);
  }

 private:
  index_t checked(const std::string& key, std::int64_t value) const {
    constexpr index_t kMost = index_t{1} << 18;  // products of three stay far from overflow
    if (value < 1 || value > kMost) {
      fail(prefix_ + key + " is " + std::to_string(value) + ", not in [1, " +
           std::to_string(kMost) + "]");
    }
    return value;
  }

  const io::Gguf& file_;
  std::string prefix_;
};

void check_is_supported(const std::string& architecture, const Keys& keys) {
  if (architecture != "llama" && architecture != "qwen3") {
    keys.unsupported("architecture " + quoted(architecture) +
                     " is not supported: the reference decoder runs \"llama\" and \"qwen3\"");
  }
  if (keys.has("expert_count") && keys.whole("expert_count") > 0) {
    keys.unsupported("mixtures of experts are not supported");
  }
}

}  // namespace

LlamaConfig llama_config(const io::Gguf& file) {
  const auto architecture = file.get<std::string>("general.architecture");
  const Keys keys(file, architecture);
  check_is_supported(architecture, keys);
  LlamaConfig c;
  c.layers = keys.count("block_count");
  c.hidden = keys.count("embedding_length");
  c.feed_forward = keys.count("feed_forward_length");
  c.query_heads = keys.count("attention.head_count");
  c.kv_heads = keys.count_or("attention.head_count_kv", c.query_heads);
  c.context_length = keys.tokens("context_length");
  c.rms_eps = keys.positive("attention.layer_norm_rms_epsilon");
  const auto num_tensors = static_cast<index_t>(file.tensors().size());
  if (c.layers > num_tensors) {
    keys.fail(architecture + ".block_count is " + std::to_string(c.layers) +
              ", but there are only " + std::to_string(num_tensors) + " tensors");
  }
  if (c.query_heads % c.kv_heads != 0) {
    keys.fail(architecture + ".attention.head_count must be a multiple of " + architecture +
              ".attention.head_count_kv");
  }
  if (!keys.has("attention.key_length") && c.hidden % c.query_heads != 0) {
    keys.fail(architecture + ".embedding_length must be a multiple of " + architecture +
              ".attention.head_count");
  }
  c.k_dim = keys.count_or("attention.key_length", c.hidden / c.query_heads);
  c.v_dim = keys.count_or("attention.value_length", c.k_dim);
  if (c.k_dim % 2 != 0) keys.fail("the heads' dimension must be even");
  if (keys.count_or("rope.dimension_count", c.k_dim) != c.k_dim) {
    keys.unsupported("RoPE over a part of a head is not supported");
  }
  c.has_qk_norm = architecture == "qwen3";
  c.rope = io::read_rope(file, architecture);
  c.rope_divisors = io::read_rope_divisors(file, c.k_dim);
  c.vocabulary = file.at("token_embd.weight").rows();
  c.has_tied_embeddings = file.find("output.weight") == nullptr;
  return c;
}

ModelShape model_shape(const LlamaConfig& c, DType dtype) {
  return {.layers = c.layers,
          .query_heads = c.query_heads,
          .kv_heads = c.kv_heads,
          .k_dim = c.k_dim,
          .v_dim = c.v_dim,
          .hidden = c.hidden,
          .vocabulary = c.vocabulary,
          .dtype = dtype,
          .rope = c.rope,
          .attention = {}};
}

RopeFrequencies rope_frequencies(const LlamaConfig& c) {
  RopeFrequencies table = spectx::rope_frequencies(c.rope, c.k_dim);
  for (std::size_t i = 0; i < c.rope_divisors.size(); ++i) {
    table.frequency[i] /= c.rope_divisors[i];
  }
  return table;
}

}  // namespace spectx::llama
