// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "spectx/types.hpp"
#include "support/gguf_writer.hpp"

namespace spectx::test {

struct TinySizes {
  index_t layers = 3;
  index_t hidden = 48;
  index_t feed_forward = 72;
  index_t query_heads = 6;
  index_t kv_heads = 2;
  index_t dim = 8;
  index_t rope_dim = 8;
  index_t context = 512;
  bool has_tied_embeddings = true;
};

/// A Llama-like model with random weights, small enough for a test: bytes are its tokens, then come
/// <|im_start|> and <|im_end|>, which ends a text.
struct TinyLlama : TinySizes {
  struct Tensor {
    std::vector<index_t> shape;  // row-major
    std::vector<float> values;
  };

  explicit TinyLlama(const TinySizes& sizes = {}, std::uint64_t seed = 1);

  index_t vocabulary = 258;
  double theta = 1e4;
  double rms_eps = 1e-5;
  std::map<std::string, Tensor> tensors;
  std::string architecture = "llama";
  GgufWriter more;  // metadata beside the usual ones

  const std::vector<float>& values(const std::string& name) const {
    return tensors.at(name).values;
  }
  /// The model as the bytes of a GGUF file, q and k in the order of interleaved RoPE.
  std::string gguf() const;
};

/// A byte in GPT-2's alphabet.
inline std::string in_alphabet(int byte) {
  static constexpr int kFirstHidden = 256;
  int code_point = byte;
  const auto is_visible = [](int b) { return (b > 32 && b < 127) || (b > 160 && b != 173); };
  if (!is_visible(byte)) {
    code_point = kFirstHidden;
    for (int b = 0; b < byte; ++b) code_point += is_visible(b) ? 0 : 1;
  }
  if (code_point < 128) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | (code_point >> 6)),
          static_cast<char>(0x80 | (code_point & 0x3f))};
}

inline TinyLlama::TinyLlama(const TinySizes& sizes, std::uint64_t seed) : TinySizes(sizes) {
  std::mt19937_64 engine(seed);
  const auto draw = [&] {
    return static_cast<float>(static_cast<double>(engine() >> 11) * 0x1p-52 - 1);  // [-1, 1)
  };
  const auto add = [&](const std::string& name, std::vector<index_t> shape, float scale) {
    Tensor& tensor = tensors[name];
    index_t size = 1;
    for (const index_t n : shape) size *= n;
    for (index_t i = 0; i < size; ++i) {
      tensor.values.push_back(shape.size() == 1 ? 1 + 0.25F * draw() : scale * draw());
    }
    tensor.shape = std::move(shape);
  };
  add("token_embd.weight", {vocabulary, hidden}, 1);
  add("output_norm.weight", {hidden}, 1);
  if (!has_tied_embeddings) add("output.weight", {vocabulary, hidden}, 0.5F);
  for (index_t l = 0; l < layers; ++l) {
    const std::string block = "blk." + std::to_string(l) + ".";
    add(block + "attn_norm.weight", {hidden}, 1);
    add(block + "attn_q.weight", {query_heads * dim, hidden}, 0.4F);
    add(block + "attn_k.weight", {kv_heads * dim, hidden}, 0.4F);
    add(block + "attn_v.weight", {kv_heads * dim, hidden}, 0.3F);
    add(block + "attn_output.weight", {hidden, query_heads * dim}, 0.3F);
    add(block + "ffn_norm.weight", {hidden}, 1);
    add(block + "ffn_gate.weight", {feed_forward, hidden}, 0.3F);
    add(block + "ffn_up.weight", {feed_forward, hidden}, 0.3F);
    add(block + "ffn_down.weight", {hidden, feed_forward}, 0.3F);
  }
}

inline std::string TinyLlama::gguf() const {
  GgufWriter meta;
  meta.meta("general.architecture", architecture);
  meta.meta("llama.block_count", layers);
  meta.meta("llama.embedding_length", hidden);
  meta.meta("llama.feed_forward_length", feed_forward);
  meta.meta("llama.attention.head_count", query_heads);
  meta.meta("llama.attention.head_count_kv", kv_heads);
  meta.meta("llama.attention.layer_norm_rms_epsilon", rms_eps);
  meta.meta("llama.context_length", context);
  meta.meta("llama.rope.freq_base", theta);
  meta.meta("llama.rope.dimension_count", rope_dim);
  meta.meta("llama.attention.key_length", dim);
  meta.meta("llama.attention.value_length", dim);
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(in_alphabet(byte));
  tokens.insert(tokens.end(), {"<|im_start|>", "<|im_end|>"});
  std::vector<std::int32_t> types(256, 1);
  types.insert(types.end(), {3, 3});
  meta.meta("tokenizer.ggml.model", std::string("gpt2"));
  meta.meta("tokenizer.ggml.pre", std::string("smollm"));
  meta.meta("tokenizer.ggml.tokens", tokens);
  meta.meta("tokenizer.ggml.token_type", types);
  meta.meta("tokenizer.ggml.merges", std::vector<std::string>{});
  meta.meta("tokenizer.ggml.eos_token_id", index_t{257});
  meta.meta("tokenizer.chat_template",
            std::string("{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + "
                        "m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"));

  GgufWriter file;
  file.raw("GGUF", 4);
  file.number(std::uint32_t{3});
  file.number(std::uint64_t{tensors.size()});
  file.number(meta.keys() + more.keys());
  file.raw(meta.bytes().data(), meta.bytes().size());
  file.raw(more.bytes().data(), more.bytes().size());
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    file.text(name);
    file.number(static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto n = tensor.shape.rbegin(); n != tensor.shape.rend(); ++n) {
      file.number(static_cast<std::uint64_t>(*n));
    }
    file.number(std::uint32_t{0});  // f32
    file.number(offset);
    offset += (tensor.values.size() * 4 + 31) / 32 * 32;
  }
  file.pad();
  for (const auto& [name, tensor] : tensors) {
    file.raw(tensor.values.data(), tensor.values.size() * 4);
    file.pad();
  }
  return file.bytes();
}

}  // namespace spectx::test
