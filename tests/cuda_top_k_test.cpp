// SPDX-License-Identifier: Apache-2.0
// top_k of rows so long that offsets in bytes need more than 31 bits.
#include <cuda_runtime_api.h>

#include "catch.hpp"
#include "support/batches.hpp"
#include "support/cuda_device.hpp"
#include "support/reference.hpp"
#include "support/slow_run.hpp"

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

TEST_CASE("top_k of rows of up to 2^29 scores") {
  const auto b = device();
  if (b == nullptr) return;
  const index_t length = GENERATE(from_range(
      values<index_t>({(1 << 22) + 3, (1 << 29) + 5}, {360'003})));  // more than a cluster holds
  CAPTURE(length);
  if (!has_room(length)) {
    WARN("the device's memory is too small for rows of this length");
    return;
  }
  const SelectionConfig rule{
      .budget = unless_slow<index_t>(8192, 2048), .sinks = 4, .recent_window = 64};
  const Buffer scores(b->memories().device, length * index_t{sizeof(float)});
  const Stream stream = b->make_stream();
  b->fill(scores.data(), 0, scores.bytes(), stream);
  // The best: eight runs of neighbours, from one end of the middle to the other. In a slow run they
  // are apart: then no other score has to be sorted out.
  const index_t wanted = rule.budget - rule.sinks - rule.recent_window;
  const index_t runs = unless_slow<index_t>(8, wanted);
  const index_t run = wanted / runs;
  const std::vector<float> ones(at(wanted), 1);
  const index_t end = length - rule.recent_window;
  Ids expected = {0, 1, 2, 3};
  for (index_t i = 0; i < runs; ++i) {
    const bool is_last = i + 1 == runs;
    const index_t count = is_last ? wanted - i * run : run;
    const index_t first = is_last ? end - count : rule.sinks + i * (end / runs);
    b->copy(scores.data() + first * index_t{sizeof(float)}, ones.data(),
            count * index_t{sizeof(float)}, stream);
    for (index_t n = first; n < first + count; ++n) {
      expected.push_back(static_cast<std::int32_t>(n));
    }
  }
  for (index_t n = end; n < length; ++n) expected.push_back(static_cast<std::int32_t>(n));
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
