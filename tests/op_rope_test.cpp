// SPDX-License-Identifier: Apache-2.0
#include "spectx/rope.hpp"

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/device_data.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"
#include "support/shapes.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

struct RopeCase {
  index_t heads, dim;
  std::vector<std::int32_t> positions;  // of the batch
  std::vector<std::int32_t> row_index;
  index_t offset = 0;
  float magnitude = 1;

  index_t rows() const {
    return static_cast<index_t>(row_index.empty() ? positions.size() : row_index.size());
  }

  /// The rotation by its definition. The angle is right to half a unit of a float turn.
  std::vector<Bound> expected(const std::vector<float>& x, const std::vector<float>& frequency) {
    std::vector<Bound> bounds(x.size());
    for (index_t i = 0; i < rows(); ++i) {
      const index_t of = row_index.empty() ? i : row_index[at(i)];
      for (index_t h = 0; h < heads; ++h) {
        for (index_t d = 0; d < dim / 2; ++d) {
          const std::size_t low = at((i * heads + h) * dim + d);
          const std::size_t high = low + at(dim / 2);
          const double a = static_cast<double>(x[low]);
          const double b = static_cast<double>(x[high]);
          if (of < 0) {
            bounds[low] = {a, 0};
            bounds[high] = {b, 0};
            continue;
          }
          const double angle = static_cast<double>(positions[at(of)] + offset) *
                               static_cast<double>(frequency[at(d)]);
          const double c = std::cos(angle) * static_cast<double>(magnitude);
          const double s = std::sin(angle) * static_cast<double>(magnitude);
          const double allowed =
              8 * kEpsilon * (std::abs(a) + std::abs(b)) * static_cast<double>(magnitude);
          bounds[low] = {a * c - b * s, allowed};
          bounds[high] = {b * c + a * s, allowed};
        }
      }
    }
    return bounds;
  }

  void check(Backend& backend) {
    const std::vector<float> frequency = rope_frequencies({.theta = 1e4F}, dim).frequency;
    const DeviceArray<float> frequencies(backend, frequency);
    const DeviceArray<std::int32_t> position(backend, positions);
    const DeviceArray<std::int32_t> index(backend, row_index);
    const DeviceMatrix x(backend, DType::f32, rows(), heads * dim,
                         Random(1).normal(rows() * heads * dim), Padding{5, 1});
    run_on(backend, [&](StreamView stream) {
      backend.rope({.x = x.heads(heads),
                    .position = position,
                    .row_index = index,
                    .frequency = frequencies,
                    .magnitude = magnitude,
                    .position_offset = offset},
                   stream);
    });
    REQUIRE(outside(x.read(), expected(x.rounded(), frequency)) == "");
    REQUIRE(x.is_padding_intact());
  }
};

}  // namespace

TEST_CASE("rope rotates the halves of a head, also far into a context") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [rows, heads] = GENERATE(from_range(combinations(kRowCounts, kHeadsShapes)));
  CAPTURE(b.name, rows, heads.query_heads, heads.k_dim);
  RopeCase c{heads.query_heads, heads.k_dim, {}, {}};
  Random random(12);
  for (index_t i = 0; i < rows; ++i) {
    c.positions.push_back(static_cast<std::int32_t>(i == 0 ? 1'000'003 : random.below(200'000)));
  }
  c.check(*b.backend);
}

TEST_CASE("rope: offset, magnitude and row_index") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  RopeCase c{3, 64, {5, 0, 9000}, {2, -1, 0, 2}, -1, 1.25F};
  c.check(*b.backend);
}

TEST_CASE("rope at position 0 changes nothing") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DeviceArray<float> frequency(*b.backend, std::vector<float>(8, 0.3F));
  const DeviceArray<std::int32_t> position(*b.backend, {0});
  const DeviceMatrix x(*b.backend, DType::f32, 1, 32, Random(3).normal(32));
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->rope({.x = x.heads(2), .position = position, .frequency = frequency}, stream);
  });
  REQUIRE(x.read() == x.rounded());
}
