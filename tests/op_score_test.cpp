// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/head_case.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

ScheduledItem selecting(int request, index_t first, index_t rows = 1) {
  return {.request = {request}, .first = first, .rows = rows, .is_dense = false, .selects = true};
}

void check_item(const HeadCase& c, std::size_t item, index_t kv_heads, GroupReduce reduce) {
  const index_t first_lead = c.first_lead(item);
  for (index_t h = 0; h < kv_heads; ++h) {
    CAPTURE(item, h);
    const ScoreReference expected = c.reference(item, h, reduce);
    REQUIRE(outside(c.scores(item, h), expected.scores) == "");
    for (std::size_t lead = 0; lead < expected.log_sum.size(); ++lead) {
      const std::vector<float> sums = c.log_sums(first_lead + static_cast<index_t>(lead), h);
      REQUIRE(outside(sums, expected.log_sum[lead]) == "");
    }
  }
}

}  // namespace

TEST_CASE("score gives the log weights of every cached token, for every shape and type") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DType dtype = GENERATE(from_range(kRowTypes));
  const auto [heads, reduce] = GENERATE(
      from_range(combinations(kHeadsShapes, std::vector{GroupReduce::max, GroupReduce::mean})));
  CAPTURE(b.name, heads.query_heads, heads.kv_heads, heads.k_dim, dtype_name(dtype),
          static_cast<int>(reduce));
  HeadCase c(*b.backend, heads, dtype, 3, 300,
             {selecting(1, 299),
              {.request = {0}, .first = 0, .rows = 20, .is_dense = true},
              selecting(2, 70, 3)});
  c.score(reduce);
  check_item(c, 0, heads.kv_heads, reduce);
  check_item(c, 2, heads.kv_heads, reduce);
  // Nothing is written for an item that reads everything, nor beyond an item's first row.
  const std::vector<float> all = c.all_scores().read();
  const index_t item_scores = heads.kv_heads * 300;
  REQUIRE(std::all_of(all.begin() + item_scores, all.begin() + 2 * item_scores,
                      [](float x) { return std::isnan(x); }));
  REQUIRE(std::isnan(all[at(2 * item_scores + 71)]));
  REQUIRE(c.log_sum().is_padding_intact());
}

TEST_CASE("score over every length around its blocks") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const index_t first = GENERATE(
      from_range(values<index_t>({1, 2, 63, 64, 65, 255, 256, 257, 1500}, {2, 64, 257, 1500})));
  CAPTURE(b.name, first);
  HeadCase c(*b.backend, {6, 2, 64, 64}, DType::bf16, 1, 1501, {selecting(0, first)});
  c.score(GroupReduce::max);
  check_item(c, 0, 2, GroupReduce::max);
}

TEST_CASE("score without candidates: token 0 alone") {
  const NamedBackend b = GENERATE(from_range(backends()));
  HeadCase c(*b.backend, {2, 1, 64, 64}, DType::bf16, 1, 8, {selecting(0, 0, 2)});
  c.score(GroupReduce::max);
  const float none = -std::numeric_limits<float>::infinity();
  REQUIRE(c.scores(0, 0) == std::vector<float>{none});
  REQUIRE(c.log_sums(0, 0) == std::vector<float>{none, none});
}

TEST_CASE("score: a NaN key reaches the scores of its head and of no other") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const GroupReduce reduce = GENERATE(GroupReduce::max, GroupReduce::mean);
  CAPTURE(b.name, static_cast<int>(reduce));
  HeadCase c(*b.backend, {6, 2, 64, 64}, DType::bf16, 1, 400, {selecting(0, 399)});
  c.set_key(0, 1, 300, std::numeric_limits<float>::quiet_NaN());
  c.score(reduce);
  REQUIRE(outside(c.scores(0, 0), c.reference(0, 0, reduce).scores) == "");
  const std::vector<float> broken = c.scores(0, 1);
  REQUIRE(std::all_of(broken.begin() + 1, broken.end(), [](float x) { return std::isnan(x); }));
}

TEST_CASE("score keeps distant log weights apart, where weights would underflow into ties") {
  const NamedBackend b = GENERATE(from_range(backends()));
  HeadCase c(*b.backend, {1, 1, 64, 64}, DType::f32, 1, 100, {selecting(0, 99)});
  for (index_t n = 1; n < 100; ++n) c.set_key(0, 0, n, static_cast<float>(n) * -10);
  c.score(GroupReduce::max);
  check_item(c, 0, 1, GroupReduce::max);
  const std::vector<float> scores = c.scores(0, 0);
  const float direction = scores[2] - scores[1];
  for (std::size_t n = 2; n < 100; ++n) REQUIRE((scores[n] - scores[n - 1]) * direction > 0);
}
