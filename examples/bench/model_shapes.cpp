// SPDX-License-Identifier: Apache-2.0
#include "bench/model_shapes.hpp"

#include <array>

#include "llama/carve.hpp"
#include "llama/random_values.hpp"
#include "plan/model_source.hpp"

namespace spectx::bench {
namespace {

struct Known {
  const char* name;
  index_t layers, hidden, feed_forward, query_heads, kv_heads, head_dim, vocabulary;
  float theta;
  bool has_tied_embeddings;
  bool has_qk_norm = false;
};

constexpr std::array<Known, 6> kKnown = {{
    {"llama-3.1-8b", 32, 4096, 14336, 32, 8, 128, 128256, 5e5F, false},
    {"llama-3.2-1b", 16, 2048, 8192, 32, 8, 64, 128256, 5e5F, true},
    {"llama-3.1-70b", 80, 8192, 28672, 64, 8, 128, 128256, 5e5F, false},
    {"mistral-7b", 32, 4096, 14336, 32, 8, 128, 32768, 1e6F, false},
    {"qwen3-8b", 36, 4096, 12288, 32, 8, 128, 151936, 1e6F, false, true},
    {"smollm2-135m", 30, 576, 1536, 9, 3, 64, 49152, 1e5F, true},
}};

constexpr index_t kAnyLength = index_t{1} << 20;

llama::LlamaConfig config_of(const Known& k) {
  llama::LlamaConfig c{.layers = k.layers,
                       .hidden = k.hidden,
                       .feed_forward = k.feed_forward,
                       .query_heads = k.query_heads,
                       .kv_heads = k.kv_heads,
                       .k_dim = k.head_dim,
                       .v_dim = k.head_dim,
                       .vocabulary = k.vocabulary,
                       .context_length = kAnyLength,
                       .has_tied_embeddings = k.has_tied_embeddings,
                       .has_qk_norm = k.has_qk_norm,
                       .rope = {},
                       .rope_divisors = {}};
  c.rope.theta = k.theta;
  return c;
}

Known from_hf_config(const std::string& path) {
  const plan::ModelSource source = plan::read_hf_config(path);
  const ModelShape& shape = source.shape;
  if (source.name == "qwen2") {
    throw Unsupported(path + ": the reference decoder runs llama, mistral and qwen3, not qwen2");
  }
  return {path.c_str(),          shape.layers,
          shape.hidden,          source.feed_forward,
          shape.query_heads,     shape.kv_heads,
          shape.k_dim,           shape.vocabulary,
          Rope{}.theta,          source.has_tied_embeddings,
          source.name == "qwen3"};
}

/// Cuts the head's tensors out of the carver's memory; over null it only counts.
HeadWeights place(llama::Carver& carver, const llama::LlamaConfig& m, DType dtype) {
  HeadWeights w;
  w.shape = {.query_heads = m.query_heads, .kv_heads = m.kv_heads, .k_dim = m.k_dim};
  w.feature_layers = {std::min<index_t>(2, m.layers / 2), m.layers / 2,
                      std::max<index_t>(m.layers - 3, m.layers / 2)};
  w.fc = carver.matrix(dtype, m.hidden, 3 * m.hidden);
  w.q_proj = carver.matrix(dtype, m.query_heads * m.k_dim, 2 * m.hidden);
  w.k_proj = carver.matrix(dtype, m.kv_heads * m.k_dim, 2 * m.hidden);
  w.input_norm = carver.vector(DType::f32, m.hidden);
  w.hidden_norm = carver.vector(DType::f32, m.hidden);
  w.rope.theta = m.rope.theta;
  return w;
}

}  // namespace

std::string known_shapes() {
  std::string names;
  for (const Known& known : kKnown) names += (names.empty() ? "" : ", ") + std::string(known.name);
  return names;
}

llama::LlamaConfig model_by_name(const std::string& name) {
  if (name.ends_with(".json")) return config_of(from_hf_config(name));
  for (const Known& known : kKnown) {
    if (name == known.name) return config_of(known);
  }
  throw InvalidArgument("--model " + name + " is none of " + known_shapes() +
                        ", a config.json, a .gguf file");
}

io::LoadedHead random_head(Backend& backend, const llama::LlamaConfig& model, TensorView embeddings,
                           DType dtype, StreamView stream) {
  llama::Carver counter(nullptr);
  place(counter, model, dtype);
  io::LoadedHead head{.weights = {},
                      .storage = Buffer(backend.memories().device, counter.bytes()),
                      .target = {},
                      .notes = {}};
  llama::Carver carver(head.storage.data());
  head.weights = place(carver, model, dtype);
  head.weights.embeddings = embeddings;
  std::uint64_t seed = 1;
  for (const TensorView& matrix : {head.weights.fc, head.weights.q_proj, head.weights.k_proj}) {
    llama::fill_random(backend, matrix, ++seed, stream);
  }
  const std::vector<float> ones(static_cast<std::size_t>(model.hidden), 1.0F);
  for (const TensorView& norm : {head.weights.input_norm, head.weights.hidden_norm}) {
    backend.copy(norm.data, ones.data(), norm.size() * 4, stream);
  }
  backend.synchronize(stream);
  return head;
}

}  // namespace spectx::bench
