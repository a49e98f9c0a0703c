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

constexpr index_t kVocabulary = 50;

struct EmbedCase {
  Backend& backend;
  index_t hidden;
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> row_index;  // empty: rows are the batch's
  DeviceMatrix table;

  /// out, whose rows were NaN before.
  std::vector<float> run() {
    const index_t rows = static_cast<index_t>(row_index.empty() ? tokens.size() : row_index.size());
    const DeviceArray<std::int32_t> ids(backend, tokens);
    const DeviceArray<std::int32_t> index(backend, row_index);
    const DeviceMatrix out(backend, DType::f32, rows, hidden, Padding{3, 2});
    run_on(backend, [&](StreamView stream) {
      backend.embed({.table = table.view(), .tokens = ids, .row_index = index, .out = out.view()},
                    stream);
    });
    REQUIRE(out.is_padding_intact());
    return out.read();
  }
  std::vector<float> entry(index_t token) const {
    const auto begin = table.rounded().begin() + token * hidden;
    return {begin, begin + hidden};
  }
};

EmbedCase make_case(Backend& backend, DType dtype, index_t hidden, std::vector<std::int32_t> tokens,
                    std::vector<std::int32_t> row_index = {}) {
  return {backend, hidden, std::move(tokens), std::move(row_index),
          DeviceMatrix(backend, dtype, kVocabulary, hidden, Random(1).normal(kVocabulary * hidden),
                       Padding{5, 1})};
}

}  // namespace

TEST_CASE("embed copies the rows of the tokens exactly") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [rows, hidden, dtype] =
      GENERATE(from_range(combinations(kRowCounts, kWidths, kRowTypes)));
  CAPTURE(b.name, dtype_name(dtype), hidden, rows);
  Random random(2);
  std::vector<std::int32_t> tokens;
  std::vector<float> expected;
  for (index_t i = 0; i < rows; ++i) {
    tokens.push_back(static_cast<std::int32_t>(random.below(kVocabulary)));
  }
  EmbedCase c = make_case(*b.backend, dtype, hidden, tokens);
  for (const std::int32_t token : tokens) {
    const std::vector<float> entry = c.entry(token);
    expected.insert(expected.end(), entry.begin(), entry.end());
  }
  REQUIRE(c.run() == expected);
}

TEST_CASE("embed gives zeros for a token outside the table") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const std::int32_t token = GENERATE(-1, static_cast<int>(kVocabulary), 1 << 30);
  CAPTURE(b.name, token);
  REQUIRE(make_case(*b.backend, DType::bf16, 17, {token}).run() == std::vector<float>(17, 0));
}

TEST_CASE("embed follows row_index and leaves out what is negative") {
  const NamedBackend b = GENERATE(from_range(backends()));
  EmbedCase c = make_case(*b.backend, DType::f32, 3, {7, 8, 9}, {2, -1, 0});
  const std::vector<float> out = c.run();
  REQUIRE(std::vector<float>(out.begin(), out.begin() + 3) == c.entry(9));
  for (std::size_t i = 3; i < 6; ++i) REQUIRE(std::isnan(out[i]));
  REQUIRE(std::vector<float>(out.begin() + 6, out.end()) == c.entry(7));
}
