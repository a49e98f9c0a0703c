// SPDX-License-Identifier: Apache-2.0
#include "llama/sampler.hpp"

#include <cmath>
#include <limits>

#include "catch.hpp"
#include "spectx/error.hpp"

namespace spectx::llama {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLowest = -std::numeric_limits<float>::infinity();

std::vector<int> histogram(const SamplingConfig& config, const std::vector<float>& logits,
                           int draws) {
  Sampler sampler(config);
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) ++counts[static_cast<std::size_t>(sampler.sample(logits))];
  return counts;
}

}  // namespace

TEST_CASE("Greedy sampling takes the largest logit, the lowest id of equal ones, never NaN") {
  Sampler sampler(SamplingConfig{});
  REQUIRE(sampler.is_greedy());
  REQUIRE(sampler.sample(std::vector<float>{1, 3, 2, 3}) == 1);
  REQUIRE(sampler.sample(std::vector<float>{kNan, -5, kNan}) == 1);
  REQUIRE(sampler.sample(std::vector<float>{kNan, kNan}) == 0);
}

TEST_CASE("Tokens come as often as their probability says") {
  const std::vector<float> logits = {0, std::log(2.0F), std::log(5.0F), kNan, kLowest};
  constexpr int kDraws = 80000;
  const auto counts = histogram({.temperature = 1, .seed = 3}, logits, kDraws);
  const double shares[] = {1 / 8.0, 2 / 8.0, 5 / 8.0, 0, 0};
  for (std::size_t i = 0; i < logits.size(); ++i) {
    // Five standard deviations of a binomial count.
    const double spread = 5 * std::sqrt(kDraws * shares[i] * (1 - shares[i]));
    CAPTURE(i, counts[i]);
    REQUIRE(std::abs(counts[i] - kDraws * shares[i]) <= spread);
  }
}

TEST_CASE("Temperature divides logits") {
  const std::vector<float> logits = {0, 2 * std::log(3.0F)};
  const auto counts = histogram({.temperature = 2, .seed = 5}, logits, 40000);
  REQUIRE(std::abs(counts[1] - 30000) <= 5 * std::sqrt(40000 * 0.75 * 0.25));
}

TEST_CASE("Top-p keeps the likeliest tokens that reach it and no others") {
  // Probabilities 0.5, 0.3, 0.15, 0.05, not in order.
  const std::vector<float> logits = {std::log(0.05F), std::log(0.5F), std::log(0.15F),
                                     std::log(0.3F)};
  const auto counts = histogram({.temperature = 1, .top_p = 0.79, .seed = 1}, logits, 8000);
  REQUIRE(counts[0] == 0);
  REQUIRE(counts[2] == 0);
  REQUIRE(std::abs(counts[1] - 5000) <= 5 * std::sqrt(8000 * 0.625 * 0.375));
  const auto one = histogram({.temperature = 1, .top_p = 0.01}, logits, 100);
  REQUIRE(one[1] == 100);
  const auto three = histogram({.temperature = 1, .top_p = 0.9}, logits, 8000);
  REQUIRE(three[0] == 0);
  REQUIRE(three[2] > 0);
}

TEST_CASE("The seed alone decides") {
  const std::vector<float> logits(100, 0.0F);
  Sampler first({.temperature = 1, .top_p = 0.9, .seed = 42});
  Sampler second({.temperature = 1, .top_p = 0.9, .seed = 42});
  Sampler third({.temperature = 1, .top_p = 0.9, .seed = 43});
  int equal = 0;
  for (int i = 0; i < 200; ++i) {
    const std::int32_t token = first.sample(logits);
    REQUIRE(token == second.sample(logits));
    equal += token == third.sample(logits) ? 1 : 0;
  }
  REQUIRE(equal < 30);
}

TEST_CASE("A sampler refuses what is no distribution") {
  REQUIRE_THROWS_AS(Sampler({.temperature = -1}), InvalidArgument);
  REQUIRE_THROWS_AS(Sampler({.top_p = 0}), InvalidArgument);
  REQUIRE_THROWS_AS(Sampler({.top_p = 1.5}), InvalidArgument);
}

}  // namespace spectx::llama
