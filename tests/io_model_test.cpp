// SPDX-License-Identifier: Apache-2.0
// SmolLM2-135M-Instruct.Q4_1.gguf, by its path in SPECTX_TEST_MODEL. The values are what the Python
// package gguf 0.19 decodes.
#include <cstdlib>

#include "io_support.hpp"
#include "spectx/io/gguf.hpp"

namespace spectx::io {
namespace {

struct Golden {
  const char* tensor;
  std::vector<index_t> shape;
  index_t row;
  std::vector<float> last;  // the last elements of the row
};

TEST_CASE("A real model's file is read") {
  const char* path = std::getenv("SPECTX_TEST_MODEL");
  REQUIRE(path != nullptr);
  const Gguf model(path);
  REQUIRE(model.get<std::string>("general.architecture") == "llama");
  REQUIRE(model.get<index_t>("llama.block_count") == 30);
  REQUIRE(model.get<float>("llama.rope.freq_base") == 100000);
  const auto tokens = model.get<std::vector<std::string_view>>("tokenizer.ggml.tokens");
  REQUIRE(tokens.size() == 49152);
  REQUIRE(tokens[0] == "<|endoftext|>");
  REQUIRE(model.tensors().size() == 272);
  const std::vector<Golden> goldens{
      {"token_embd.weight", {49152, 576}, 49151, {0x1.0756p-3F, -0x1.eb16p-4F, -0x1.55ap-5F}},
      {"blk.29.ffn_down.weight", {576, 1536}, 575, {0x1.ap-3F, -0x1.7p-4F, 0x1.dp-5F}},
      {"blk.0.attn_q.weight", {576, 576}, 0, {0x1.01ep-1F, 0x1.01ep-1F, 0x1.fap-4F}},
      {"output_norm.weight", {576}, 0, {0x1.e2p+0F, 0x1.ecp+0F, 0x1.fcp+0F}},
  };
  for (const Golden& golden : goldens) {
    CAPTURE(golden.tensor);
    const GgufTensor& tensor = model.at(golden.tensor);
    REQUIRE(tensor.shape == golden.shape);
    std::vector<float> row(static_cast<std::size_t>(tensor.cols()));
    model.read_rows(tensor, golden.row, vector_view(row.data(), DType::f32, tensor.cols()));
    REQUIRE(std::vector<float>(row.end() - 3, row.end()) == golden.last);
  }
}

}  // namespace
}  // namespace spectx::io
