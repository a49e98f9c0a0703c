// SPDX-License-Identifier: Apache-2.0
// A tiny Qwen3 with random weights against the logits of transformers.
#include <cmath>

#include "catch.hpp"
#include "support/llama_runner.hpp"
#include "support/tensor_values.hpp"

namespace spectx::test {
TEST_CASE("Logits of a tiny Qwen3 are those of transformers") {
  const index_t chunk = GENERATE(index_t{1}, index_t{7}, index_t{64});
  const io::Gguf file(SPECTX_TEST_DATA "/tiny_qwen3.gguf");
  const io::Safetensors golden(SPECTX_TEST_DATA "/tiny_qwen3_logits.safetensors");
  const auto tokens = values<std::int32_t>(golden, "tokens");
  const auto wanted = values<float>(golden, "logits");
  LlamaRunner runner(file, DType::f32, DType::f32, 64, chunk);
  REQUIRE(runner.config().has_qk_norm);
  const std::vector<float> got = runner.run(tokens);
  REQUIRE(got.size() == wanted.size());
  double largest = 0;
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(wanted[i])));
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - wanted[i]));
  }
  CAPTURE(chunk, worst, largest);
  REQUIRE(worst <= 256 * 0x1p-23 * largest);  // sums in another order on both sides, two layers
}

}  // namespace spectx::test
