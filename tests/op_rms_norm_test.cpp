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

std::vector<Bound> expected(const std::vector<float>& x, const std::vector<float>& weight,
                            index_t rows, double eps) {
  const index_t dim = static_cast<index_t>(weight.size());
  std::vector<Bound> bounds;
  for (index_t i = 0; i < rows; ++i) {
    const float* const from = x.data() + i * dim;
    const double scale = 1 / std::sqrt(dot(from, from, dim).value / static_cast<double>(dim) + eps);
    for (index_t d = 0; d < dim; ++d) {
      const double value =
          static_cast<double>(from[d]) * scale * static_cast<double>(weight[at(d)]);
      bounds.push_back({value, kSumSlack * kEpsilon * std::abs(value)});
    }
  }
  return bounds;
}

}  // namespace

TEST_CASE("rms_norm divides by the root of the mean square, in place or not") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DType dtype = GENERATE(from_range(kRowTypes));
  const auto [rows, dim, in_place] =
      GENERATE(from_range(combinations(kRowCounts, kWidths, std::vector{false, true})));
  CAPTURE(b.name, dtype_name(dtype), dim, rows, in_place);
  Random random(9);
  const DeviceMatrix x(*b.backend, DType::f32, rows, dim, random.normal(rows * dim, 3),
                       Padding{3, 1});
  const DeviceMatrix weight(*b.backend, dtype, 1, dim, random.normal(dim), Padding{0, 1});
  const DeviceMatrix out(*b.backend, DType::f32, rows, dim, Padding{1, 2});
  const DeviceMatrix& to = in_place ? x : out;
  const TensorView weights = vector_view(weight.view().data, dtype, dim);
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->rms_norm({.x = x.view(), .weight = weights, .out = to.view(), .eps = 1e-3F}, stream);
  });
  const double eps = static_cast<double>(1e-3F);
  REQUIRE(outside(to.read(), expected(x.rounded(), weight.rounded(), rows, eps)) == "");
  REQUIRE(to.is_padding_intact());
}

TEST_CASE("rms_norm of heads leaves the columns beside them alone") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const index_t dim = GENERATE(6, 64, 128);
  CAPTURE(b.name, dim);
  const index_t rows = 5;
  const index_t heads = 3;
  const index_t columns = heads * dim;
  Random random(10);
  // More columns follow those of the heads: x is the left part of wider rows.
  const DeviceMatrix x(*b.backend, DType::f32, rows, columns, random.normal(rows * columns, 3),
                       Padding{2 * dim, 1});
  const DeviceMatrix weight(*b.backend, DType::f32, 1, dim, random.normal(dim));
  const std::vector<Bound> wanted = expected(x.rounded(), weight.rounded(), rows * heads, 0);
  const TensorView view = split_heads(x.view(), heads, dim);
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->rms_norm({.x = view,
                         .weight = vector_view(weight.view().data, DType::f32, dim),
                         .out = view,
                         .eps = 0},
                        stream);
  });
  REQUIRE(outside(x.read(), wanted) == "");
  REQUIRE(x.is_padding_intact());
}

TEST_CASE("rms_norm of zeros is zeros") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DeviceMatrix x(*b.backend, DType::f32, 2, 33, std::vector<float>(66, 0));
  const DeviceMatrix weight(*b.backend, DType::f32, 1, 33, std::vector<float>(33, 1));
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->rms_norm(
        {.x = x.view(), .weight = vector_view(weight.view().data, DType::f32, 33), .out = x.view()},
        stream);
  });
  REQUIRE(x.read() == std::vector<float>(66, 0));
}
