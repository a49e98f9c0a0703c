// SPDX-License-Identifier: Apache-2.0
#include "plan/model_source.hpp"

#include <algorithm>

#include "spectx/io/gguf.hpp"

namespace spectx::plan {

index_t estimate_weight_bytes(const ModelShape& shape, const WeightDims& dims) {
  for (const index_t n : {shape.layers, shape.query_heads, shape.kv_heads, shape.k_dim, shape.v_dim,
                          shape.hidden, shape.vocabulary, dims.feed_forward}) {
    expects(n >= 0 && n <= index_t{1} << 20, "a dimension of the model is beyond 2^20");
  }
  const auto real = [](index_t n) { return static_cast<double>(n); };
  const double feed_forward =
      dims.feed_forward > 0 ? real(dims.feed_forward) : 3.5 * real(shape.hidden);
  const double columns = real(shape.query_heads) * real(shape.k_dim + shape.v_dim) +
                         real(shape.kv_heads) * real(shape.k_dim + shape.v_dim) + 3 * feed_forward +
                         2;
  const double embeddings = (dims.has_tied_embeddings ? 1 : 2) * real(shape.vocabulary) + 1;
  const double bytes = real(shape.hidden) * (real(shape.layers) * columns + embeddings) *
                       real(dtype_bytes(shape.dtype));
  expects(bytes < 0x1p60, "the model's weights would not fit in any memory");
  return static_cast<index_t>(bytes);
}

ModelSource read_gguf(const std::string& path) {
  const io::Gguf file(path);
  const auto family = file.get<std::string>("general.architecture");
  if (family != "llama" && family != "qwen2" && family != "qwen3") {
    throw Unsupported(path + ": architecture \"" + family +
                      "\" is none of llama, qwen2 and qwen3; give the dimensions as flags");
  }
  const auto count = [&](const char* key) {
    const auto n = file.get<std::int64_t>(family + "." + key);
    constexpr std::int64_t kMax = 1 << 30;
    if (n < 1 || n > kMax) {
      throw FileError(path + ": " + family + "." + key + " must be in 1 .. 2^30");
    }
    return n;
  };
  const auto count_or = [&](const char* key, index_t otherwise) {
    return file.has(family + "." + key) ? count(key) : otherwise;
  };
  ModelSource source;
  source.name = file.get_or<std::string>("general.name", family);
  ModelShape& shape = source.shape;
  shape.layers = count("block_count");
  shape.query_heads = count("attention.head_count");
  shape.kv_heads = count_or("attention.head_count_kv", shape.query_heads);
  shape.hidden = count("embedding_length");
  shape.k_dim = count_or("attention.key_length", shape.hidden / shape.query_heads);
  shape.v_dim = count_or("attention.value_length", shape.hidden / shape.query_heads);
  shape.vocabulary = file.at("token_embd.weight").rows();
  shape.dtype = DType::bf16;
  if (shape.layers > 1 << 16) throw FileError(path + ": " + family + ".block_count is too large");
  source.context_length = count_or("context_length", 0);
  if (file.has(family + ".attention.sliding_window")) {
    source.notes.emplace_back("the file names a sliding window: all layers are counted as full");
  }
  for (const io::GgufTensor& tensor : file.tensors()) {
    source.weight_bytes += static_cast<index_t>(tensor.bytes.size());
  }
  source.weight_origin = "tensors as they are in the file, without activations";
  return source;
}

}  // namespace spectx::plan
