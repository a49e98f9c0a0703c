// SPDX-License-Identifier: Apache-2.0
#include "llama/config.hpp"

#include <cmath>
#include <limits>
#include <string>

namespace spectx::llama {
namespace {

/// A file's text as part of a one-line message.
std::string quoted(std::string text) {
  constexpr std::size_t kMost = 40;
  for (char& c : text) c = c >= ' ' && c <= '~' ? c : '?';
  return '"' + (text.size() > kMost ? text.substr(0, kMost) + "..." : text) + '"';
}

/// The keys of one file, checked as they are read.
class Keys {
 public:
  explicit Keys(const io::Gguf& file) : file_(file) {}

  bool has(const std::string& key) const { return file_.has("llama." + key); }

  index_t count(const std::string& key) const {
    return checked(key, file_.get<std::int64_t>("llama." + key));
  }
  index_t tokens(const std::string& key) const {
    const auto value = file_.get<std::int64_t>("llama." + key);
    if (value < 1 || value > std::numeric_limits<std::int32_t>::max()) {
      fail("llama." + key + " is " + std::to_string(value) + ", no possible number of tokens");
    }
    return value;
  }
  index_t count_or(const std::string& key, index_t otherwise) const {
    return has(key) ? count(key) : otherwise;
  }
  float positive(const std::string& key) const {
    const auto value = file_.get<float>("llama." + key);
    if (!std::isfinite(value) || value <= 0) fail("llama." + key + " must be a positive number");
    return value;
  }
  float positive_or(const std::string& key, float otherwise) const {
    return has(key) ? positive(key) : otherwise;
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
      fail("llama." + key + " is " + std::to_string(value) + ", not in [1, " +
           std::to_string(kMost) + "]");
    }
    return value;
  }

  const io::Gguf& file_;
};

void read_rope_scaling(const io::Gguf& file, const Keys& keys, Rope& rope) {
  const auto type = file.get_or<std::string>("llama.rope.scaling.type", "");
  // The older form: a bare factor, always linear.
  const float old_factor = keys.positive_or("rope.scale_linear", 1);
  rope.factor = keys.positive_or("rope.scaling.factor", old_factor);
  if (type == "none" || (type.empty() && rope.factor == 1)) {
    rope.factor = 1;
    return;
  }
  if (type == "linear" || type.empty()) {
    rope.scaling = RopeScaling::linear;
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::yarn;
    rope.original_length = static_cast<float>(keys.tokens("rope.scaling.original_context_length"));
    rope.beta_fast = keys.positive_or("rope.scaling.yarn_beta_fast", rope.beta_fast);
    rope.beta_slow = keys.positive_or("rope.scaling.yarn_beta_slow", rope.beta_slow);
    // The file's factor multiplies the one that follows from the scaling.
    const float extra = keys.positive_or("rope.scaling.attn_factor", 1);
    rope.attention_factor = extra * (0.1F * std::log(rope.factor) + 1);
  } else {
    keys.unsupported("RoPE scaling " + quoted(type) + " is not supported");
  }
  if (rope.factor < 1) keys.fail("llama.rope.scaling.factor must be at least 1");
}

std::vector<float> read_rope_divisors(const io::Gguf& file, const Keys& keys, index_t k_dim) {
  const io::GgufTensor* tensor = file.find("rope_freqs.weight");
  if (tensor == nullptr) return {};
  if (tensor->rows() != 1 || tensor->cols() != k_dim / 2) {
    keys.fail("rope_freqs.weight must be [" + std::to_string(k_dim / 2) + "]");
  }
  std::vector<float> divisors(static_cast<std::size_t>(k_dim / 2));
  file.read_rows(*tensor, 0, vector_view(divisors.data(), DType::f32, k_dim / 2));
  for (const float divisor : divisors) {
    if (!std::isfinite(divisor) || divisor <= 0) {
      keys.fail("rope_freqs.weight must hold positive numbers");
    }
  }
  return divisors;
}

void check_is_supported(const io::Gguf& file, const Keys& keys) {
  const auto architecture = file.get<std::string>("general.architecture");
  if (architecture != "llama") {
    keys.unsupported("architecture " + quoted(architecture) +
                     " is not supported: the reference decoder runs \"llama\"");
  }
  if (keys.has("expert_count") && file.get<std::int64_t>("llama.expert_count") > 0) {
    keys.unsupported("mixtures of experts are not supported");
  }
}

}  // namespace

LlamaConfig llama_config(const io::Gguf& file) {
  const Keys keys(file);
  check_is_supported(file, keys);
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
    keys.fail("llama.block_count is " + std::to_string(c.layers) + ", but there are only " +
              std::to_string(num_tensors) + " tensors");
  }
  if (c.query_heads % c.kv_heads != 0) {
    keys.fail("llama.attention.head_count must be a multiple of llama.attention.head_count_kv");
  }
  if (!keys.has("attention.key_length") && c.hidden % c.query_heads != 0) {
    keys.fail("llama.embedding_length must be a multiple of llama.attention.head_count");
  }
  c.k_dim = keys.count_or("attention.key_length", c.hidden / c.query_heads);
  c.v_dim = keys.count_or("attention.value_length", c.k_dim);
  if (c.k_dim % 2 != 0) keys.fail("the heads' dimension must be even");
  if (keys.count_or("rope.dimension_count", c.k_dim) != c.k_dim) {
    keys.unsupported("RoPE over a part of a head is not supported");
  }
  c.rope.theta = keys.positive_or("rope.freq_base", c.rope.theta);
  read_rope_scaling(file, keys, c.rope);
  c.rope_divisors = read_rope_divisors(file, keys, c.k_dim);
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
