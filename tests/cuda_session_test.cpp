// SPDX-License-Identifier: Apache-2.0
// The reference decoder's steps as CUDA graphs: the same bits as steps that are run.
#include <filesystem>
#include <fstream>

#include "catch.hpp"
#include "llama/session.hpp"
#include "support/cuda_device.hpp"
#include "support/tiny_head.hpp"
#include "support/tiny_llama.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

std::string written(const std::string& name, const std::string& bytes) {
  const std::filesystem::path path = std::filesystem::temp_directory_path() / name;
  std::ofstream(path, std::ios::binary) << bytes;
  return path.string();
}

/// A model of several groups of layers and its head, on the device.
struct Model {
  explicit Model(std::shared_ptr<Backend> device)
      : backend(std::move(device)),
        stream(backend->make_stream()),
        path(written("spectx_cuda_session.gguf", TinyLlama({.layers = 32,
                                                            .feed_forward = 32,
                                                            .query_heads = 2,
                                                            .dim = 64,
                                                            .rope_dim = 64,
                                                            .context = 1200})
                                                     .gguf())),
        file(path),
        config(llama::llama_config(file)),
        weights(*backend, file, config, DType::bf16, stream),
        head(io::load_head(*backend,
                           written("spectx_cuda_session.safetensors", TinyHead{}.safetensors()),
                           llama::model_shape(config, DType::bf16), weights.all().embeddings,
                           {.dtype = DType::bf16}, stream)) {}

  std::shared_ptr<Backend> backend;
  Stream stream;
  std::string path;
  io::Gguf file;
  llama::LlamaConfig config;
  llama::LlamaWeights weights;
  io::LoadedHead head;
};

struct Decoded {
  std::vector<float> logits;
  std::vector<std::int32_t> tokens;
  std::vector<index_t> rows;
  int replayed = 0, offloaded = 0;
};

/// 50 steps that read everything, 100 that select, and 50 of these once more, as spectx-generate
/// compares.
Decoded decode(Model& m, bool captures, index_t cache_bytes) {
  llama::Session session(*m.backend, m.weights, &m.head,
                         {.selection = {.budget = 96, .sinks = 4, .recent_window = 64},
                          .max_length = 800,
                          .chunk_rows = 128,
                          .device_bytes = m.backend->scratch_bytes({}) + cache_bytes,
                          .host_bytes = index_t{256} << 20,
                          .captures = captures});
  std::vector<std::int32_t> prompt;
  for (int i = 0; i < 500; ++i) prompt.push_back(i * i % 251);
  session.prefill(prompt);
  Decoded all;
  std::int32_t token = 7;
  for (int n = 0; n < 200; ++n) {
    if (n == 50 || n == 150) session.rewind();
    session.step(token, n < 50 ? llama::Attention::full : llama::Attention::selected);
    token = session.likeliest();
    all.tokens.push_back(token);
    const std::span<const float> logits = session.logits();
    all.logits.insert(all.logits.end(), logits.begin(), logits.end());
    all.rows.push_back(session.figures().rows);
    all.replayed += session.figures().is_replayed ? 1 : 0;
    all.offloaded += session.figures().path == Path::selected_offloaded ? 1 : 0;
  }
  return all;
}

}  // namespace

TEST_CASE("a session's steps give the same bits as graphs") {
  const auto backend = device();
  if (!backend) return;
  Model model(backend);
  const bool is_offloaded = GENERATE(false, true);
  CAPTURE(is_offloaded);
  const index_t cache_bytes = index_t{is_offloaded ? 12 : 512} << 20;
  const Decoded run = decode(model, false, cache_bytes);
  const Decoded launched = decode(model, true, cache_bytes);
  REQUIRE(run.offloaded == (is_offloaded ? 150 : 0));
  REQUIRE(run.replayed == 0);
  // Steps that read all of an offloaded group are run.
  REQUIRE(launched.replayed == (is_offloaded ? 150 : 200));
  REQUIRE(launched.tokens == run.tokens);
  REQUIRE(launched.rows == run.rows);
  REQUIRE(launched.logits == run.logits);
}
