// SPDX-License-Identifier: Apache-2.0
// SmolLM2-135M-Instruct.Q4_1.gguf, by its path in SPECTX_TEST_MODEL, against transformers' logits.
#include <cmath>
#include <cstdlib>

#include "catch.hpp"
#include "support/llama_runner.hpp"
#include "support/tensor_values.hpp"

namespace spectx::test {
namespace {

double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - top);
  return top + std::log(sum);
}

}  // namespace

TEST_CASE("Logits of a real model are those of transformers") {
  // Both compute in f32. Sums in another order, 30 layers deep, differ by up to 1e-4 of logits
  // around 20; two tokens as close as that could swap, but in this text none do.
  constexpr double kTolerance = 5e-4;
  const char* path = std::getenv("SPECTX_TEST_MODEL");
  REQUIRE(path != nullptr);
  const io::Safetensors golden(SPECTX_TEST_DATA "/golden_logits.safetensors");
  const auto tokens = values<std::int32_t>(golden, "tokens");
  const auto top1 = values<std::int32_t>(golden, "top1");
  const auto sums = values<float>(golden, "log_sum_exp");
  const auto sample_ids = values<std::int32_t>(golden, "sample_ids");
  const auto samples = values<float>(golden, "sample_logits");  // [tokens, sample_ids]
  REQUIRE(tokens.size() == 512);

  LlamaRunner runner(io::Gguf(path), DType::f32, DType::f32, 512, 128);
  const std::vector<float> logits = runner.run(tokens);
  const auto vocabulary = static_cast<std::size_t>(runner.config().vocabulary);
  double worst = 0;
  std::size_t num_same = 0;
  for (std::size_t n = 0; n < tokens.size(); ++n) {
    const std::span row(&logits[n * vocabulary], vocabulary);
    const auto best = std::max_element(row.begin(), row.end()) - row.begin();
    num_same += best == top1[n] ? 1 : 0;
    worst = std::max(worst, std::abs(log_sum_exp(row) - static_cast<double>(sums[n])));
    for (std::size_t i = 0; i < sample_ids.size(); ++i) {
      const float wanted = samples[n * sample_ids.size() + i];
      const float got = row[static_cast<std::size_t>(sample_ids[i])];
      worst = std::max(worst, std::abs(static_cast<double>(got) - wanted));
    }
  }
  CAPTURE(worst);
  REQUIRE(num_same == tokens.size());
  REQUIRE(worst <= kTolerance);
}

}  // namespace spectx::test
