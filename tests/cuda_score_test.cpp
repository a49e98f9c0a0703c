// SPDX-License-Identifier: Apache-2.0
// score with queries of half size: on tensor cores where keys are of their type.
#include "catch.hpp"
#include "spectx/cuda/backend.hpp"
#include "support/cuda_device.hpp"
#include "support/head_case.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

ScheduledItem selecting(int request, index_t first, index_t rows = 1) {
  return {.request = {request}, .first = first, .rows = rows, .is_dense = false, .selects = true};
}

void check_item(const HeadCase& c, std::size_t item, index_t kv_heads, GroupReduce reduce) {
  for (index_t h = 0; h < kv_heads; ++h) {
    CAPTURE(item, h);
    const ScoreReference expected = c.reference(item, h, reduce);
    REQUIRE(outside(c.scores(item, h), expected.scores) == "");
    for (std::size_t lead = 0; lead < expected.log_sum.size(); ++lead) {
      const std::vector<float> sums =
          c.log_sums(c.first_lead(item) + static_cast<index_t>(lead), h);
      REQUIRE(outside(sums, expected.log_sum[lead]) == "");
    }
  }
}

}  // namespace

TEST_CASE("score with queries of half size gives the log weights, for every shape") {
  const auto b = device();
  if (b == nullptr) return;
  const auto [heads, dtype, reduce] =
      GENERATE(from_range(combinations(kHalfHeadsShapes, std::vector{DType::f16, DType::bf16},
                                       std::vector{GroupReduce::max, GroupReduce::mean})));
  CAPTURE(dtype_name(dtype), heads.query_heads, heads.k_dim, static_cast<int>(reduce));
  HeadCase c(*b, heads, dtype, 3, 700,
             {selecting(1, 699),
              {.request = {0}, .first = 0, .rows = 20, .is_dense = true},
              selecting(2, 70, 3)},
             dtype);
  c.score(reduce);
  check_item(c, 0, heads.kv_heads, reduce);
  check_item(c, 2, heads.kv_heads, reduce);
}

TEST_CASE("score on tensor cores over every length around its chunks and blocks") {
  const auto b = device();
  if (b == nullptr) return;
  using Numbers = std::vector<index_t>;
  // Short items have a kernel of their own.
  const auto [first, neighbour] = GENERATE(from_range(combinations(
      values<index_t>({0, 1, 2, 15, 16, 63, 64, 255, 256, 257, 5000, 9000}, {257, 9000, 15}),
      Numbers{300, 8000, 9000})));
  CAPTURE(first, neighbour);
  HeadCase c(*b, {6, 2, 64, 64}, DType::bf16, 1, 9001, {selecting(0, first)}, DType::bf16);
  c.score(GroupReduce::max);
  if (first > 0) check_item(c, 0, 2, GroupReduce::max);
  const std::vector<float> alone = c.scores(0, 0);
  HeadCase crowd(*b, {6, 2, 64, 64}, DType::bf16, 1, 9001,
                 {selecting(0, first), selecting(0, 70), selecting(0, neighbour)}, DType::bf16);
  crowd.score(GroupReduce::max);
  REQUIRE(crowd.scores(0, 0) == alone);
  REQUIRE(crowd.log_sums(0, 0) == c.log_sums(0, 0));
}

TEST_CASE("score on tensor cores: a NaN key reaches the scores of its head and of no other") {
  const auto b = device();
  if (b == nullptr) return;
  HeadCase c(*b, {6, 2, 64, 64}, DType::bf16, 1, 400, {selecting(0, 399)}, DType::bf16);
  c.set_key(0, 1, 300, std::numeric_limits<float>::quiet_NaN());
  c.score(GroupReduce::max);
  check_item(c, 0, 1, GroupReduce::max);
  const std::vector<float> broken = c.scores(0, 1);
  REQUIRE(std::all_of(broken.begin() + 1, broken.end(), [](float x) { return std::isnan(x); }));
}
