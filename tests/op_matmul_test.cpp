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

struct MatmulShape {
  index_t rows, in, out;
};

struct MatmulRun {
  DeviceMatrix x, w, out;
  MatmulShape shape;

  MatmulRun(Backend& b, DType dtype, MatmulShape s, const std::vector<float>& x_values,
            const std::vector<float>& w_values, const std::vector<float>& before)
      : x(b, DType::f32, s.rows, s.in, x_values, Padding{3, 1}),
        w(b, dtype, s.out, s.in, w_values, Padding{5, 3}),
        out(b, DType::f32, s.rows, s.out, before, Padding{7, 1}),
        shape(s) {}

  std::vector<float> run(Backend& b, float beta) {
    run_on(b, [&](StreamView stream) {
      b.matmul({.x = x.view(), .w = w.view(), .out = out.view(), .beta = beta}, stream);
    });
    REQUIRE(out.is_padding_intact());
    return out.read();
  }
  std::vector<Bound> expected(float beta) const {
    return matmul_reference(x.rounded(), w.rounded(), out.rounded(), shape.rows, shape.in,
                            shape.out, beta);
  }
};

std::vector<float> nans(index_t count) {
  return std::vector<float>(at(count), std::numeric_limits<float>::quiet_NaN());
}

}  // namespace

TEST_CASE("matmul of multiples of 1/64 is exact, whatever lies beside the matrices") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [rows, in_and_out, dtype] = GENERATE(
      from_range(combinations(kRowCounts,
                              std::vector<std::pair<index_t, index_t>>{
                                  {1, 1}, {17, 5}, {576, 193}, {1025, 48}, {64, 0}, {100, 47}},
                              kRowTypes)));
  const MatmulShape shape{rows, in_and_out.first, in_and_out.second};
  CAPTURE(b.name, dtype_name(dtype), shape.rows, shape.in, shape.out);
  Random random(4);
  MatmulRun m(*b.backend, dtype, shape, random.sixtyfourths(rows * shape.in),
              random.sixtyfourths(shape.out * shape.in), nans(rows * shape.out));
  std::vector<float> expected;
  for (const Bound& bound : m.expected(0)) expected.push_back(static_cast<float>(bound.expected));
  REQUIRE(m.run(*b.backend, 0) == expected);
}

TEST_CASE("matmul of normal values is within the error of its sums") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DType dtype = GENERATE(from_range(kRowTypes));
  const auto [rows, beta] = GENERATE(
      from_range(combinations(std::vector<index_t>{1, 8, 9, 130}, std::vector{0.0F, 1.0F, -0.5F})));
  CAPTURE(b.name, dtype_name(dtype), rows, beta);
  const MatmulShape shape{rows, 2500, 300};
  Random random(6);
  MatmulRun m(*b.backend, dtype, shape, random.normal(rows * shape.in),
              random.normal(shape.out * shape.in), random.normal(rows * shape.out));
  REQUIRE(outside(m.run(*b.backend, beta), m.expected(beta)) == "");
}

TEST_CASE("matmul: a row of few does not depend on its neighbours") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DType dtype = GENERATE(from_range(kRowTypes));
  CAPTURE(b.name, dtype_name(dtype));
  const index_t in = 1100;
  const index_t out = 37;
  Random random(8);
  const std::vector<float> x = random.normal(8 * in);
  const std::vector<float> w = random.normal(out * in);
  MatmulRun all(*b.backend, dtype, {8, in, out}, x, w, nans(8 * out));
  const std::vector<float> together = all.run(*b.backend, 0);
  for (index_t rows = 1; rows < 8; rows += unless_slow(1, 3)) {
    MatmulRun few(*b.backend, dtype, {rows, in, out}, {x.begin(), x.begin() + rows * in}, w,
                  nans(rows * out));
    CAPTURE(rows);
    REQUIRE(few.run(*b.backend, 0) ==
            std::vector<float>(together.begin(), together.begin() + rows * out));
  }
}

TEST_CASE("matmul without inner dimension is beta out") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const index_t rows = GENERATE(1, 20);
  CAPTURE(b.name, rows);
  MatmulRun zero(*b.backend, DType::bf16, {rows, 0, 3}, {}, {}, nans(rows * 3));
  REQUIRE(zero.run(*b.backend, 0) == std::vector<float>(at(rows * 3), 0));
  MatmulRun kept(*b.backend, DType::bf16, {rows, 0, 3}, {}, {},
                 std::vector<float>(at(rows * 3), 4));
  REQUIRE(kept.run(*b.backend, 0.5F) == std::vector<float>(at(rows * 3), 2));
}
