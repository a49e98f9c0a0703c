// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/device_data.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"
#include "support/shapes.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<std::int32_t> run(Backend& backend, index_t rows, index_t vocabulary,
                              const std::vector<float>& logits) {
  const DeviceMatrix x(backend, DType::f32, rows, vocabulary, logits, Padding{3, 1});
  const DeviceArray<std::int32_t> out(backend, std::vector<std::int32_t>(at(rows), -7));
  run_on(backend,
         [&](StreamView stream) { backend.argmax({.logits = x.view(), .out = out}, stream); });
  return out.read();
}

}  // namespace

TEST_CASE("argmax gives the lowest index of the largest") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [rows, vocabulary] = GENERATE(
      from_range(combinations(kRowCounts, std::vector<index_t>{1, 2, 15, 16, 17, 100, 40'001})));
  CAPTURE(b.name, rows, vocabulary);
  // Multiples of 1/64 in a small range: many ties.
  const std::vector<float> logits = Random(5).sixtyfourths(rows * vocabulary);
  std::vector<std::int32_t> expected;
  for (index_t i = 0; i < rows; ++i) {
    const auto begin = logits.begin() + i * vocabulary;
    expected.push_back(
        static_cast<std::int32_t>(std::max_element(begin, begin + vocabulary) - begin));
  }
  REQUIRE(run(*b.backend, rows, vocabulary, logits) == expected);
}

TEST_CASE("argmax ranks NaN below every number") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  REQUIRE(run(*b.backend, 1, 4, {kNaN, -kInfinity, kNaN, -kInfinity}) == std::vector{1});
  REQUIRE(run(*b.backend, 1, 3, {kNaN, kNaN, kNaN}) == std::vector{0});
  REQUIRE(run(*b.backend, 1, 3, {1, kNaN, kInfinity}) == std::vector{2});
  REQUIRE(run(*b.backend, 1, 4, {-1, -0.0F, 0.0F, kNaN}) == std::vector{1});
  std::vector<float> many(1000, kNaN);
  many[777] = -3;
  REQUIRE(run(*b.backend, 1, 1000, many) == std::vector{777});
}
