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

enum class Out { other, first, second };

const std::vector<index_t> kDims = {1, 17, 64, 2048, 5001};
const std::vector<Out> kOuts = {Out::other, Out::first, Out::second};

struct Operands {
  DeviceMatrix a, b, other;

  Operands(Backend& backend, index_t rows, index_t dim)
      : a(backend, DType::f32, rows, dim, Random(1).normal(rows * dim, 5), Padding{1, 3}),
        b(backend, DType::f32, rows, dim, Random(2).normal(rows * dim, 5), Padding{2, 1}),
        other(backend, DType::f32, rows, dim, Padding{5, 2}) {}

  const DeviceMatrix& out(Out which) const {
    return which == Out::other ? other : (which == Out::first ? a : b);
  }
};

}  // namespace

TEST_CASE("add is the exact float sum, also into an operand") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [rows, dim, which] = GENERATE(from_range(combinations(kRowCounts, kDims, kOuts)));
  CAPTURE(b.name, rows, dim, static_cast<int>(which));
  const Operands x(*b.backend, rows, dim);
  const DeviceMatrix& out = x.out(which);
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->add({.a = x.a.view(), .b = x.b.view(), .out = out.view()}, stream);
  });
  std::vector<float> sum = x.a.rounded();
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += x.b.rounded()[i];
  REQUIRE(out.read() == sum);
  REQUIRE(out.is_padding_intact());
}

TEST_CASE("add of a repeated vector adds it to every row") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [rows, dim] = GENERATE(from_range(combinations(kRowCounts, kDims)));
  CAPTURE(b.name, rows, dim);
  const Operands x(*b.backend, rows, dim);
  const DeviceMatrix vector(*b.backend, DType::f32, 1, dim, Random(3).normal(dim), Padding{0, 1});
  const TensorView bias = repeated(vector_view(vector.view().data, DType::f32, dim), rows);
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->add({.a = x.a.view(), .b = bias, .out = x.a.view()}, stream);
  });
  std::vector<float> sum = x.a.rounded();
  for (std::size_t i = 0; i < sum.size(); ++i) {
    sum[i] += vector.rounded()[i % static_cast<std::size_t>(dim)];
  }
  REQUIRE(x.a.read() == sum);
  REQUIRE(x.a.is_padding_intact());
}

TEST_CASE("swiglu is silu(gate) * up, also into an operand") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [rows, dim, which] = GENERATE(from_range(combinations(kRowCounts, kDims, kOuts)));
  CAPTURE(b.name, rows, dim, static_cast<int>(which));
  const Operands x(*b.backend, rows, dim);
  const DeviceMatrix& out = x.out(which);
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->swiglu({.gate = x.a.view(), .up = x.b.view(), .out = out.view()}, stream);
  });
  std::vector<Bound> bounds;
  for (std::size_t i = 0; i < x.a.rounded().size(); ++i) {
    const double gate = static_cast<double>(x.a.rounded()[i]);
    const double value = gate / (1 + std::exp(-gate)) * static_cast<double>(x.b.rounded()[i]);
    // exp(-gate) carries the rounding of its argument, |gate| eps, and its own.
    bounds.push_back({value, (8 + std::abs(gate)) * kEpsilon * std::abs(value)});
  }
  REQUIRE(outside(out.read(), bounds) == "");
  REQUIRE(out.is_padding_intact());
}

TEST_CASE("swiglu far from zero is 0 or gate * up") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DeviceMatrix gate(*b.backend, DType::f32, 1, 4, {-200, 200, 0, -90});
  const DeviceMatrix up(*b.backend, DType::f32, 1, 4, {2, 2, 2, 1});
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->swiglu({.gate = gate.view(), .up = up.view(), .out = gate.view()}, stream);
  });
  const std::vector<float> out = gate.read();
  REQUIRE(std::abs(out[0]) < 1e-35F);
  REQUIRE(out[1] == 400);
  REQUIRE(out[2] == 0);
  REQUIRE(std::abs(out[3]) < 1e-35F);
}
