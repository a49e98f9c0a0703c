// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "catch.hpp"
#include "io_support.hpp"
#include "spectx/half.hpp"
#include "support/llama_reference.hpp"
#include "support/llama_runner.hpp"

namespace spectx::test {
namespace {

io::Gguf parsed(const std::string& bytes) { return io::Gguf::parse(bytes_of(bytes), "tiny.gguf"); }

std::vector<std::int32_t> some_tokens(std::size_t count) {
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i < count; ++i) tokens.push_back(static_cast<std::int32_t>(i * 37 % 258));
  return tokens;
}

/// Rounding errors add up over three layers of sums of at most 72 terms: in float 256 units in the
/// last place of the largest logit. Activations of 16 bits round once an operation, about 30 times
/// one after the other, and are summed in float: 16 of their units.
double tolerance_of(DType activations) {
  return activations == DType::f32   ? 256 * 0x1p-23
         : activations == DType::f16 ? 16 * 0x1p-10
                                     : 16 * 0x1p-7;
}

void check_close(const std::vector<float>& got, const std::vector<std::vector<double>>& wanted,
                 DType activations) {
  double largest = 0;
  double worst = 0;
  std::size_t i = 0;
  for (const auto& row : wanted) {
    for (const double value : row) {
      largest = std::max(largest, std::abs(value));
      worst = std::max(worst, std::abs(static_cast<double>(got.at(i++)) - value));
    }
  }
  REQUIRE(i == got.size());
  CAPTURE(worst, largest, activations);
  REQUIRE(worst <= tolerance_of(activations) * largest);
}

}  // namespace

TEST_CASE("The decoder's logits are those of a double-precision forward pass") {
  const bool is_tied = GENERATE(true, false);
  const index_t chunk = GENERATE(index_t{1}, index_t{7}, index_t{64}, index_t{100});
  CAPTURE(is_tied, chunk);
  const TinyLlama model({.has_tied_embeddings = is_tied});
  const std::string file = model.gguf();
  const auto tokens = some_tokens(100);
  LlamaRunner runner(parsed(file), DType::f32, DType::f32, 128, chunk);
  check_close(runner.run(tokens), LlamaReference(model).logits(tokens), DType::f32);
}

TEST_CASE("Weights in 16 bits are those of the file, rounded") {
  const DType dtype = GENERATE(DType::f16, DType::bf16);
  TinyLlama model;
  for (auto& [name, tensor] : model.tensors) {
    if (tensor.shape.size() < 2) continue;  // norms stay as they are
    for (float& w : tensor.values) {
      w = dtype == DType::f16 ? to_float(from_float<half_t>(w)) : to_float(from_float<bf16_t>(w));
    }
  }
  const std::string file = model.gguf();
  const auto tokens = some_tokens(40);
  LlamaRunner runner(parsed(file), dtype, DType::f32, 64, 16);
  check_close(runner.run(tokens), LlamaReference(model).logits(tokens),
              runner.backend().compute_dtype(dtype));
}

TEST_CASE("Logits are made for the rows that are asked for") {
  const std::string file = TinyLlama().gguf();
  const auto tokens = some_tokens(20);
  LlamaRunner all(parsed(file), DType::f32, DType::f32, 64, 20);
  LlamaRunner one(parsed(file), DType::f32, DType::f32, 64, 20);
  const std::vector<float> wanted = all.run(tokens);
  const Batch& batch = one.step(tokens);
  const TensorView last = one.decoder().last_logits(batch, one.stream());
  REQUIRE(last.shape[0] == 1);
  const std::vector<float> got = one.read(last);
  const std::vector<float> tail(wanted.end() - 258, wanted.end());
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - tail[i]));
  }
  REQUIRE(worst <= 1e-4);  // logits are of size 10, sums of 48 terms

  std::int32_t token = -1;
  const Array<const std::int32_t> likeliest = one.decoder().likeliest(last, one.stream());
  one.backend().copy(&token, likeliest.data, sizeof(token), one.stream());
  one.backend().synchronize(one.stream());
  REQUIRE(token == std::max_element(got.begin(), got.end()) - got.begin());

  REQUIRE_THROWS_AS(one.decoder().logits(10, 11, one.stream()), InvalidArgument);
  REQUIRE_THROWS_AS(one.step(some_tokens(21)), InvalidArgument);
}

TEST_CASE("Factors of RoPE frequencies divide them") {
  TinyLlama model;
  model.tensors["rope_freqs.weight"] = {{4}, {1, 1, 4, 8}};
  const std::string file = model.gguf();
  const llama::LlamaConfig config = llama::llama_config(parsed(file));
  const RopeFrequencies got = llama::rope_frequencies(config);
  const RopeFrequencies plain = rope_frequencies(config.rope, 8);
  REQUIRE(got.frequency[1] == plain.frequency[1]);
  REQUIRE(got.frequency[2] == plain.frequency[2] / 4);
  REQUIRE(got.frequency[3] == plain.frequency[3] / 8);
}

TEST_CASE("RoPE scaling is read from the metadata") {
  TinyLlama linear;
  linear.more.meta("llama.rope.scaling.type", std::string("linear"));
  linear.more.meta("llama.rope.scaling.factor", 4.0);
  const std::string first = linear.gguf();
  REQUIRE(llama::llama_config(parsed(first)).rope.scaling == RopeScaling::linear);
  REQUIRE(llama::llama_config(parsed(first)).rope.factor == 4);

  TinyLlama yarn;
  yarn.more.meta("llama.rope.scaling.type", std::string("yarn"));
  yarn.more.meta("llama.rope.scaling.factor", 2.0);
  yarn.more.meta("llama.rope.scaling.original_context_length", index_t{256});
  const std::string second = yarn.gguf();
  const Rope rope = llama::llama_config(parsed(second)).rope;
  REQUIRE(rope.scaling == RopeScaling::yarn);
  REQUIRE(rope.original_length == 256);
  // Equal to what the library derives when the file says nothing of attention.
  Rope derived = rope;
  derived.attention_factor = 0;
  REQUIRE(std::abs(rope_frequencies(rope, 8).magnitude - rope_frequencies(derived, 8).magnitude) <=
          1e-6F);
}

TEST_CASE("What the decoder cannot run is refused with the reason") {
  const auto message = [](const TinyLlama& model) {
    const std::string file = model.gguf();
    return message_of<Error>([&] { LlamaRunner(parsed(file), DType::f32, DType::f32, 64, 8); });
  };
  TinyLlama other;
  other.architecture = "gpt\x1b[1m";
  REQUIRE(message(other) ==
          "tiny.gguf: architecture \"gpt?[1m\" is not supported: the reference decoder runs "
          "\"llama\" and \"qwen3\"");

  TinyLlama biased;
  biased.tensors["blk.0.attn_q.bias"] = {{48}, std::vector<float>(48)};
  REQUIRE(message(biased).find("blk.0.attn_q.bias") != std::string::npos);

  TinyLlama misshapen;
  misshapen.tensors["blk.1.ffn_up.weight"] = {{72, 47}, std::vector<float>(72 * 47)};
  REQUIRE(message(misshapen).find("blk.1.ffn_up.weight is [72, 47], but the metadata ask for "
                                  "[72, 48]") != std::string::npos);

  TinyLlama deep;
  deep.layers = 1 << 17;
  deep.tensors.erase("output_norm.weight");
  REQUIRE(message(deep).find("llama.block_count is 131072") != std::string::npos);

  TinyLlama lacking;
  lacking.tensors.erase("blk.2.ffn_down.weight");
  REQUIRE(message(lacking).find("blk.2.ffn_down.weight") != std::string::npos);

  TinyLlama odd;
  odd.kv_heads = 4;
  REQUIRE(message(odd).find("multiple of llama.attention.head_count_kv") != std::string::npos);

  TinyLlama partial;
  partial.rope_dim = 4;
  REQUIRE(message(partial).find("part of a head") != std::string::npos);
}

}  // namespace spectx::test
