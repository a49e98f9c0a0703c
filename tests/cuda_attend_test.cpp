// SPDX-License-Identifier: Apache-2.0
// attend with activations of half size: on tensor cores where an item has many rows.
#include "catch.hpp"
#include "spectx/cuda/backend.hpp"
#include "support/attend_case.hpp"
#include "support/cuda_device.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

using Rows = std::vector<index_t>;

constexpr index_t kTokens = 500;

AttendItem dense(int request, index_t first, index_t rows) {
  return {.item = {.request = {request}, .first = first, .rows = rows, .is_dense = true},
          .ids = {},
          .is_offloaded = false};
}

/// Every third token before the item's rows, and those.
AttendItem sparse(int request, index_t first, index_t rows, index_t kv_heads) {
  std::vector<std::int32_t> ids;
  for (std::int32_t n = 0; n < first + rows; ++n) {
    if (n % 3 == 1 || n >= first) ids.push_back(n);
  }
  return {.item = {.request = {request}, .first = first, .rows = rows, .selects = true},
          .ids = std::vector<std::vector<std::int32_t>>(at(kv_heads), ids),
          .is_offloaded = false};
}

}  // namespace

TEST_CASE("attend with activations of half size is the softmax, to their precision") {
  const auto b = device();
  if (b == nullptr) return;
  const auto [heads, dtype] =
      GENERATE(from_range(combinations(kHalfHeadsShapes, std::vector{DType::f16, DType::bf16})));
  CAPTURE(dtype_name(dtype), heads.query_heads, heads.k_dim);
  const AttendCase data(heads, dtype, 4, kTokens, 3, dtype);
  const std::vector<AttendItem> items = {dense(0, 0, 70), sparse(1, 300, 1, heads.kv_heads),
                                         dense(2, 127, 9), sparse(3, 400, 33, heads.kv_heads)};
  // A weight and an output are rounded once each; values are normal, so that none is above 6.
  const double epsilon = dtype == DType::f16 ? 0x1p-10 : 0x1p-7;
  std::vector<Bound> bounds = data.expected(items);
  for (Bound& bound : bounds) bound.allowed += epsilon * (6 + std::abs(bound.expected)) / 2;
  REQUIRE(outside(data.run(*b, items), bounds) == "");
}

TEST_CASE("attend of many rows: how rows of q and out lie does not change a bit") {
  const auto b = device();
  if (b == nullptr) return;
  const auto [rows, heads] =
      GENERATE(from_range(combinations(std::vector<index_t>{200, 43, 9},
                                       std::vector<HeadsShape>{{8, 2, 128, 128}, {3, 1, 64, 64}})));
  CAPTURE(heads.k_dim, rows);
  constexpr index_t kLong = 1100;
  const AttendCase data(heads, DType::bf16, 1, kLong, 9, DType::bf16);
  const std::vector<AttendItem> items = {dense(0, kLong - rows, rows)};
  std::vector<Bound> bounds = data.expected(items);
  for (Bound& bound : bounds) bound.allowed += 0x1p-8 * (6 + std::abs(bound.expected));
  const std::vector<float> wide = data.run(*b, items, 1, {7, 8});
  REQUIRE(outside(wide, bounds) == "");
  REQUIRE(wide == data.run(*b, items, 2));
}

TEST_CASE("attend on tensor cores: neighbours, slots and names of rows do not change a bit") {
  const auto b = device();
  if (b == nullptr) return;
  const HeadsShape heads{8, 2, 128, 128};
  const index_t rows = GENERATE(from_range(values<index_t>({9, 64, 100}, {9, 100})));
  CAPTURE(rows);
  const AttendCase data(heads, DType::bf16, 3, kTokens, 5, DType::bf16);
  AttendItem item = dense(1, kTokens - rows, rows);
  const std::vector<float> alone = data.run(*b, {item}, 1);
  const std::vector<float> together = data.run(*b, {dense(0, 3, 1), item, dense(2, 0, 200)}, 2);
  const auto begin = together.begin() + heads.query_heads * heads.v_dim;
  REQUIRE(alone == std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(alone.size())));
  item.item.is_dense = false;
  item.ids.assign(at(heads.kv_heads), Random(1).ascending(kTokens, kTokens));
  REQUIRE(alone == data.run(*b, {item}, 3));
  item.is_offloaded = true;
  REQUIRE(alone == data.run(*b, {item}, 4));
}

TEST_CASE("attend of one row: how many blocks share its splits does not change a bit") {
  const auto b = device();
  if (b == nullptr) return;
  // 16 splits to a block at last
  const index_t requests = GENERATE(from_range(values<index_t>({2, 3, 8, 16}, {3, 16})));
  CAPTURE(requests);
  const HeadsShape heads{8, 8, 64, 64};
  constexpr index_t kRanks = 2048;
  const AttendCase data(heads, DType::bf16, 1, kRanks, 5, DType::bf16);
  const AttendItem item = dense(0, kRanks - 1, 1);
  std::vector<Bound> bounds = data.expected({item});
  for (Bound& bound : bounds) bound.allowed += 0x1p-8 * (6 + std::abs(bound.expected));
  const std::vector<float> alone = data.run(*b, {item});
  REQUIRE(outside(alone, bounds) == "");
  const std::vector<float> all = data.run(*b, std::vector<AttendItem>(at(requests), item));
  for (std::size_t i = 0; i < at(requests); ++i) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(i * alone.size());
    REQUIRE(alone == std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(alone.size())));
  }
}
