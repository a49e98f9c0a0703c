// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/batches.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"
#include "support/shapes.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr index_t kRingRows = 8;
constexpr index_t kRequests = 3;

TensorView ring_view(const DeviceMatrix& ring, index_t width) {
  TensorView view = ring.heads(kRingRows);
  REQUIRE(view.shape[2] == width);
  return view;
}

}  // namespace

TEST_CASE("store_ring keeps the last rows of every item at their position") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DType dtype = GENERATE(from_range(kRowTypes));
  const index_t width = GENERATE(1, 17, 64);
  CAPTURE(b.name, dtype_name(dtype), width);
  const std::vector<ScheduledItem> items = {{.request = {2}, .first = 5, .rows = 20},
                                            {.request = {0}, .first = 11, .rows = 1},
                                            {.request = {1}, .first = 3, .rows = 0}};
  const BatchData batch(*b.backend, items);
  const DeviceMatrix rows(*b.backend, DType::f32, 21, width, Random(1).sixtyfourths(21 * width),
                          Padding{3, 1});
  const DeviceMatrix ring(*b.backend, dtype, kRequests, kRingRows * width);
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->store_ring(
        {.rows = rows.view(), .batch = batch.get(), .ring = ring_view(ring, width)}, stream);
  });
  std::vector<float> expected(at(kRequests * kRingRows * width),
                              std::numeric_limits<float>::quiet_NaN());
  const auto put = [&](index_t row, index_t request, index_t position) {
    std::copy_n(rows.rounded().begin() + row * width, width,
                expected.begin() + (request * kRingRows + position % kRingRows) * width);
  };
  for (index_t n = 12; n < 20; ++n) put(n, 2, 5 + n);
  put(20, 0, 11);
  const std::vector<float> stored = ring.read();
  for (std::size_t i = 0; i < stored.size(); ++i) {
    CAPTURE(i);
    REQUIRE((stored[i] == expected[i] || (std::isnan(stored[i]) && std::isnan(expected[i]))));
  }
}

TEST_CASE("load_ring gives every lead the row before its item, zeros before position 0") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DType dtype = GENERATE(from_range(kRowTypes));
  const index_t width = GENERATE(1, 17, 64);
  CAPTURE(b.name, dtype_name(dtype), width);
  const std::vector<ScheduledItem> items = {
      {.request = {2}, .first = 8, .rows = 3, .is_dense = false, .selects = true},
      {.request = {0}, .first = 0, .rows = 4, .is_dense = true},
      {.request = {1}, .first = 1003, .rows = 5, .is_dense = true}};
  const BatchData batch(*b.backend, items);
  const DeviceMatrix ring(*b.backend, dtype, kRequests, kRingRows * width,
                          Random(2).normal(kRequests * kRingRows * width));
  const DeviceMatrix out(*b.backend, DType::f32, 5, width, Padding{1, 3});
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->load_ring({.ring = ring_view(ring, width), .batch = batch.get(), .out = out.view()},
                         stream);
  });
  std::vector<float> expected;
  const auto take = [&](index_t request, index_t position) {
    const auto from = ring.rounded().begin() + (request * kRingRows + position % kRingRows) * width;
    expected.insert(expected.end(), from, from + width);
  };
  for (int lead = 0; lead < 3; ++lead) take(2, 7);
  expected.insert(expected.end(), at(width), 0.0F);
  take(1, 1002);
  REQUIRE(out.read() == expected);
  REQUIRE(out.is_padding_intact());
}
