// SPDX-License-Identifier: Apache-2.0
// top_k of rows so long that offsets in bytes, and in half of that, need more than 31 bits.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>

#include "catch.hpp"
#include "support/batches.hpp"
#include "support/cuda_device.hpp"
#include "support/reference.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

using Ids = std::vector<std::int32_t>;

/// Whether the scores and a candidate for each, in memory of a power of two, fit beside others.
bool has_room(index_t length) {
  std::size_t free = 0;
  std::size_t total = 0;
  REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
  return free / 28 > static_cast<std::size_t>(length);
}

}  // namespace

TEST_CASE("top_k of rows of up to 2^31 - 2 scores") {
  const auto b = device();
  if (b == nullptr) return;
  const index_t length =
      GENERATE((index_t{1} << 22) + 3, (index_t{1} << 29) + 5, (index_t{1} << 31) - 2);
  CAPTURE(length);
  if (is_slow_run() && length > 1 << 23) return;
  if (!has_room(length)) {
    WARN("the device's memory is too small for rows of this length");
    return;
  }
  const SelectionConfig rule{.budget = 8192, .sinks = 4, .recent_window = 64};
  const Buffer scores(b->memories().device, length * index_t{sizeof(float)});
  const Stream stream = b->make_stream();
  b->fill(scores.data(), 0, scores.bytes(), stream);
  // The best, from one end to the other; then all are equal, and the first of them are taken.
  const float one = 1;
  const std::array<index_t, 6> best = {4,           length / 5, length / 2, length / 4 * 3 + 1,
                                       length - 66, length - 65};
  Ids expected = {0, 1, 2, 3};
  for (const index_t id : best) {
    b->copy(scores.data() + id * index_t{sizeof(float)}, &one, sizeof(one), stream);
    expected.push_back(static_cast<std::int32_t>(id));
  }
  const auto end = static_cast<std::int32_t>(length - rule.recent_window);
  for (std::int32_t id = end; id < end + rule.recent_window; ++id) expected.push_back(id);
  for (std::int32_t id = 4; static_cast<index_t>(expected.size()) < rule.budget; ++id) {
    if (std::find(best.begin(), best.end(), id) == best.end()) expected.push_back(id);
  }
  std::sort(expected.begin(), expected.end());
  const BatchData batch(*b, {{.request = {0}, .first = length - 1, .rows = 1, .selects = true}});
  const DeviceArray<std::int32_t> ids(*b, Ids(at(rule.budget), -5));
  const DeviceArray<std::int32_t> counts(*b, {-5});
  b->top_k({.scores = split_heads(matrix_view(scores.data(), DType::f32, 1, length), 1, length),
            .batch = batch.get(),
            .rule = rule,
            .out = {.ids = ids, .counts = counts, .coverage = {}, .max_budget = rule.budget}},
           stream);
  b->synchronize(stream);
  REQUIRE(counts.read() == Ids{static_cast<std::int32_t>(rule.budget)});
  REQUIRE(ids.read() == expected);
}
