// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/attend_case.hpp"
#include "support/backends.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

AttendItem dense(int request, index_t first, index_t rows) {
  return {.item = {.request = {request}, .first = first, .rows = rows, .is_dense = true},
          .ids = {},
          .is_offloaded = false};
}

/// The same `count` random tokens before `first` for every head's own draw, and the item's own
/// rows.
AttendItem sparse(Random& random, int request, index_t first, index_t rows, index_t kv_heads,
                  index_t count) {
  AttendItem item{.item = {.request = {request}, .first = first, .rows = rows, .selects = true},
                  .ids = {},
                  .is_offloaded = false};
  for (index_t h = 0; h < kv_heads; ++h) {
    std::vector<std::int32_t> ids = random.ascending(count, first);
    for (index_t p = first; p < first + rows; ++p) ids.push_back(static_cast<std::int32_t>(p));
    item.ids.push_back(ids);
  }
  return item;
}

}  // namespace

TEST_CASE("attend is the softmax over the rows that a row sees, for every shape and type") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const HeadsShape heads = GENERATE(from_range(kHeadsShapes));
  const DType dtype = GENERATE(from_range(kRowTypes));
  CAPTURE(b.name, heads.query_heads, heads.kv_heads, heads.k_dim, heads.v_dim, dtype_name(dtype));
  const AttendCase data(heads, dtype, 3, 300, 17);
  Random random(3);
  const std::vector<AttendItem> items = {
      dense(2, 0, 70), sparse(random, 0, 290, 1, heads.kv_heads, 150), dense(1, 127, 3)};
  REQUIRE(outside(data.run(*b.backend, items), data.expected(items)) == "");
}

TEST_CASE("attend over every length around its splits and blocks") {
  const NamedBackend b = GENERATE(from_range(backends()));
  using Numbers = std::vector<index_t>;
  const auto [length, rows] = GENERATE(from_range(combinations(
      Numbers{600, 257, 256, 129, 128, 127, 33, 32, 31, 2, 1}, Numbers{1, 2, 8, 9, 64, 65})));
  CAPTURE(b.name, length, rows);
  if (rows > length) return;
  const AttendCase data({6, 2, 64, 64}, DType::bf16, 1, length, 5);
  const std::vector<AttendItem> items = {dense(0, length - rows, rows)};
  REQUIRE(outside(data.run(*b.backend, items), data.expected(items)) == "");
}

TEST_CASE("attend of many rows with a selection sees the selection only") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const bool is_offloaded = GENERATE(false, true);
  CAPTURE(b.name, is_offloaded);
  const AttendCase data({4, 2, 64, 64}, DType::f16, 1, 700, 29);
  Random random(31);
  std::vector<AttendItem> items = {sparse(random, 0, 640, 20, 2, 400)};
  items[0].is_offloaded = is_offloaded;
  REQUIRE(outside(data.run(*b.backend, items), data.expected(items)) == "");
}

TEST_CASE("attend of an empty batch does nothing") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const AttendCase data({4, 2, 64, 64}, DType::bf16, 1, 32, 1);
  REQUIRE(data.run(*b.backend, {}).empty());
  const std::vector<AttendItem> items = {dense(0, 5, 0)};
  REQUIRE(data.run(*b.backend, items).empty());
}

TEST_CASE("attend with scores far apart keeps the largest") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [winner, rows] = GENERATE(
      from_range(combinations(std::vector<index_t>{0, 100, 299}, std::vector<index_t>{1, 20})));
  CAPTURE(b.name, winner, rows);
  KVPages pages(*b.backend, {.rows = 320, .dtype = DType::f32});
  for (index_t n = 0; n < 320; ++n) {
    const float sign = n == winner ? 1.0F : -1.0F;
    pages.set(0, 0, n, std::vector<float>(64, 40 * sign),
              std::vector<float>(64, static_cast<float>(n)));
  }
  pages.upload();
  const BatchData batch(*b.backend, {{.request = {0}, .first = 300, .rows = rows}});
  const DeviceMatrix q(*b.backend, DType::f32, rows, 64, std::vector<float>(at(rows * 64), 10));
  const DeviceMatrix out(*b.backend, DType::f32, rows, 64);
  KVView kv = pages.view();
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->attend({.q = q.heads(1), .kv = kv, .batch = batch.get(), .out = out.heads(1)},
                      stream);
  });
  // What a backend's exp makes of -32,000 may be the smallest normal float instead of 0.
  const double allowed = 320 * 320 * static_cast<double>(std::numeric_limits<float>::min());
  REQUIRE(outside(out.read(),
                  std::vector<Bound>(at(rows * 64), {static_cast<double>(winner), allowed})) == "");
}
