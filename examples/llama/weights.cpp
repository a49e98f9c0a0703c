// SPDX-License-Identifier: Apache-2.0
#include "llama/weights.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "llama/carve.hpp"
#include "llama/random_values.hpp"

namespace spectx::llama {
namespace {

constexpr index_t kStagingBytes = index_t{1} << 20;

std::string dimensions(const std::vector<index_t>& shape) {
  std::string text = "[";
  for (const index_t n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + "]";
}

/// Decodes tensors of a file into device memory through one host buffer. Without a backend it only
/// checks that they are as expected.
class Loader {
 public:
  Loader(const io::Gguf& file, Backend* backend, StreamView stream)
      : file_(file), backend_(backend), stream_(stream) {}

  void vector(const std::string& name, TensorView to) {
    read(name, {to.shape[0]}, matrix_view(to.data, to.dtype, 1, to.shape[0]), 0);
  }
  void matrix(const std::string& name, TensorView to) {
    read(name, {to.shape[0], to.shape[1]}, to, 0);
  }
  /// Rows of q or k. A GGUF file of a Llama has each head's two halves interleaved, for the other
  /// form of RoPE: row 2 i + j is row j * dim / 2 + i.
  void rotary_matrix(const std::string& name, TensorView to, index_t dim) {
    read(name, {to.shape[0], to.shape[1]}, to, dim);
  }

  index_t num_seen() const noexcept { return num_seen_; }

 private:
  void read(const std::string& name, const std::vector<index_t>& shape, TensorView to,
            index_t head_dim) {
    const io::GgufTensor& tensor = file_.at(name);
    if (tensor.shape != shape) {
      throw FileError(file_.path() + ": tensor " + name + " is " + dimensions(tensor.shape) +
                      ", but the metadata ask for " + dimensions(shape));
    }
    ++num_seen_;
    if (backend_ == nullptr) return;
    const index_t row_bytes = to.shape[1] * dtype_bytes(to.dtype);
    const index_t unit = std::max<index_t>(head_dim, 1);  // whole heads stay together
    const index_t block = std::max(kStagingBytes / row_bytes / unit, index_t{1}) * unit;
    const auto needed = static_cast<std::size_t>(std::min(block, to.shape[0]) * row_bytes);
    if (staging_.size() < needed) staging_.resize(needed);
    for (index_t first = 0; first < to.shape[0]; first += block) {
      const index_t count = std::min(block, to.shape[0] - first);
      file_.read_rows(tensor, first, matrix_view(staging_.data(), to.dtype, count, to.shape[1]));
      if (head_dim > 0) split_halves(count, row_bytes, head_dim);
      backend_->copy(rows(to, first, count).data, staging_.data(), count * row_bytes, stream_);
    }
  }

  void split_halves(index_t count, index_t row_bytes, index_t dim) {
    interleaved_.assign(staging_.begin(), staging_.begin() + count * row_bytes);
    for (index_t n = 0; n < count; ++n) {
      const index_t in_head = n % dim;
      const index_t from = n - in_head + 2 * (in_head % (dim / 2)) + in_head / (dim / 2);
      std::memcpy(staging_.data() + n * row_bytes, interleaved_.data() + from * row_bytes,
                  static_cast<std::size_t>(row_bytes));
    }
  }

  const io::Gguf& file_;
  Backend* backend_;
  StreamView stream_;
  std::vector<std::byte> staging_;
  std::vector<std::byte> interleaved_;
  index_t num_seen_ = 0;
};

/// Fills tensors with the values of a seed; without a backend it does nothing.
class RandomLoader {
 public:
  RandomLoader(Backend* backend, DType dtype, std::uint64_t seed, StreamView stream)
      : backend_(backend), stream_(stream) {
    if (backend == nullptr) return;
    constexpr index_t kValues = index_t{1} << 22;
    block_ = Buffer(backend->memories().device, kValues * dtype_bytes(dtype));
    fill_random(*backend, matrix_view(block_.data(), dtype, 1, kValues), seed, stream);
  }

  void vector(const std::string&, TensorView to) {
    if (backend_ == nullptr) return;
    const std::vector<float> ones(static_cast<std::size_t>(to.size()), 1.0F);
    backend_->copy(to.data, ones.data(), to.size() * 4, stream_);
  }
  void matrix(const std::string&, TensorView to) {
    if (backend_ == nullptr) return;
    auto* const begin = static_cast<std::byte*>(to.data);
    const index_t bytes = to.size() * dtype_bytes(to.dtype);
    for (index_t at = 0; at < bytes; at += block_.bytes()) {
      backend_->copy(begin + at, block_.data(), std::min(block_.bytes(), bytes - at), stream_);
    }
  }
  void rotary_matrix(const std::string& name, TensorView to, index_t) { matrix(name, to); }

 private:
  Backend* backend_;
  StreamView stream_;
  Buffer block_;
};

/// Rows of a tensor that may have no memory yet.
TensorView part(TensorView m, index_t begin, index_t count) {
  if (m) return rows(m, begin, count);
  m.shape[0] = count;
  return m;
}

template <class AnyLoader>
void load_layer(AnyLoader& loader, const LlamaConfig& c, index_t l, const LayerWeights& to) {
  const std::string block = "blk." + std::to_string(l) + ".";
  const index_t q_rows = c.query_heads * c.k_dim;
  const index_t k_rows = c.kv_heads * c.k_dim;
  const index_t v_rows = c.kv_heads * c.v_dim;
  loader.vector(block + "attn_norm.weight", to.attention_norm);
  const TensorView q = part(to.qkv, 0, q_rows);
  const TensorView k = part(to.qkv, q_rows, k_rows);
  if (c.has_qk_norm) {
    loader.matrix(block + "attn_q.weight", q);
    loader.matrix(block + "attn_k.weight", k);
    loader.vector(block + "attn_q_norm.weight", to.q_norm);
    loader.vector(block + "attn_k_norm.weight", to.k_norm);
  } else {
    loader.rotary_matrix(block + "attn_q.weight", q, c.k_dim);
    loader.rotary_matrix(block + "attn_k.weight", k, c.k_dim);
  }
  loader.matrix(block + "attn_v.weight", part(to.qkv, q_rows + k_rows, v_rows));
  loader.matrix(block + "attn_output.weight", to.output);
  loader.vector(block + "ffn_norm.weight", to.mlp_norm);
  loader.matrix(block + "ffn_gate.weight", part(to.gate_up, 0, c.feed_forward));
  loader.matrix(block + "ffn_up.weight", part(to.gate_up, c.feed_forward, c.feed_forward));
  loader.matrix(block + "ffn_down.weight", to.down);
}

/// Cuts every tensor out of the carver's memory and loads it.
template <class AnyLoader>
AllWeights load_all(AnyLoader& loader, Carver& carver, const LlamaConfig& c, DType dtype) {
  const TensorView none;
  AllWeights all;
  all.embeddings = carver.matrix(dtype, c.vocabulary, c.hidden);
  all.final_norm = carver.vector(DType::f32, c.hidden);
  all.head = all.embeddings;
  loader.matrix("token_embd.weight", all.embeddings);
  loader.vector("output_norm.weight", all.final_norm);
  if (!c.has_tied_embeddings) {
    all.head = carver.matrix(dtype, c.vocabulary, c.hidden);
    loader.matrix("output.weight", all.head);
  }
  for (index_t l = 0; l < c.layers; ++l) {
    all.layers.push_back({.attention_norm = carver.vector(DType::f32, c.hidden),
                          .qkv = carver.matrix(dtype, c.qkv_rows(), c.hidden),
                          .q_norm = c.has_qk_norm ? carver.vector(DType::f32, c.k_dim) : none,
                          .k_norm = c.has_qk_norm ? carver.vector(DType::f32, c.k_dim) : none,
                          .output = carver.matrix(dtype, c.hidden, c.query_heads * c.v_dim),
                          .mlp_norm = carver.vector(DType::f32, c.hidden),
                          .gate_up = carver.matrix(dtype, 2 * c.feed_forward, c.hidden),
                          .down = carver.matrix(dtype, c.hidden, c.feed_forward)});
    load_layer(loader, c, l, all.layers.back());
  }
  return all;
}

/// A tensor that is left over (a bias, say) would change the result.
void check_all_known(const io::Gguf& file, const LlamaConfig& c, index_t num_known) {
  const index_t known = num_known + (c.rope_divisors.empty() ? 0 : 1);
  const auto there = static_cast<index_t>(file.tensors().size());
  if (there == known) return;
  for (const io::GgufTensor& tensor : file.tensors()) {
    if (!tensor.name.ends_with(".weight")) {
      throw Unsupported(file.path() + ": the reference decoder does not know tensor " +
                        std::string(tensor.name));
    }
  }
  throw Unsupported(file.path() + ": of its " + std::to_string(there) +
                    " tensors the reference decoder knows only " + std::to_string(known));
}

}  // namespace

index_t LlamaWeights::bytes(const io::Gguf& file, const LlamaConfig& config, DType dtype) {
  Loader checker(file, nullptr, {});
  Carver counter(nullptr);
  load_all(checker, counter, config, dtype);
  check_all_known(file, config, checker.num_seen());
  return counter.bytes();
}

LlamaWeights::LlamaWeights(Backend& backend, const io::Gguf& file, const LlamaConfig& config,
                           DType dtype, StreamView stream)
    : config_(config),
      dtype_(dtype),
      storage_(backend.memories().device, bytes(file, config, dtype)) {
  Loader loader(file, &backend, stream);
  Carver carver(storage_.data());
  all_ = load_all(loader, carver, config, dtype);
  backend.synchronize(stream);
}

index_t LlamaWeights::bytes(const LlamaConfig& config, DType dtype) {
  RandomLoader nothing(nullptr, dtype, 0, {});
  Carver counter(nullptr);
  load_all(nothing, counter, config, dtype);
  return counter.bytes();
}

LlamaWeights::LlamaWeights(Backend& backend, const LlamaConfig& config, DType dtype,
                           std::uint64_t seed, StreamView stream)
    : config_(config), dtype_(dtype), storage_(backend.memories().device, bytes(config, dtype)) {
  RandomLoader loader(&backend, dtype, seed, stream);
  Carver carver(storage_.data());
  all_ = load_all(loader, carver, config, dtype);
  backend.synchronize(stream);
}

}  // namespace spectx::llama
