// SPDX-License-Identifier: Apache-2.0
#include "bench/trace.hpp"

#include <algorithm>
#include <fstream>

#include "catch.hpp"

namespace spectx::test {
namespace {

using namespace bench;

const RecordedTrace& trace() {
  static const RecordedTrace recorded(SPECTX_TRACES "/selection-smollm2-b512.bin");
  return recorded;
}

}  // namespace

TEST_CASE("The recorded trace runs forth and back") {
  REQUIRE(trace().heads() == 6);
  REQUIRE(trace().steps() == 256);
  REQUIRE(trace().budget() == 512);
  for (const index_t head : {0, 5}) {
    for (const index_t step : {0, 1, 255}) {
      const auto& ids = trace().at(head, step);
      REQUIRE(ids.size() == 512);
      REQUIRE(std::adjacent_find(ids.begin(), ids.end(), std::greater_equal<>()) == ids.end());
      REQUIRE(ids.front() == 0);
      REQUIRE(ids.back() == 7168 + step);
    }
    REQUIRE(trace().at(head, 256) == trace().at(head, 254));
    REQUIRE(trace().at(head, 511) == trace().at(head, 1));
  }
}

TEST_CASE("A scaled selection is one that the rule could have made") {
  const index_t context = GENERATE(index_t{2100}, index_t{4096}, index_t{34816});
  const double random_share = GENERATE(0.0, 0.1);
  const ReplayShape shape{
      .selection = {.budget = 2048}, .kv_heads = 8, .random_share = random_share};
  CAPTURE(context, random_share);
  std::vector<std::int32_t> ids(2048);
  for (const index_t step : {0, 3, 200}) {
    scaled_selection(trace(), shape, 5, 7, context + step + 1, ids.data());
    REQUIRE(std::adjacent_find(ids.begin(), ids.end(), std::greater_equal<>()) == ids.end());
    REQUIRE(ids[3] == 3);
    REQUIRE(ids[2048 - 64] == context + step + 1 - 64);
    REQUIRE(ids.back() == context + step);
  }
}

TEST_CASE("Scaling keeps the share of rows that a buffer lacks, and can raise it") {
  ReplayShape shape{.selection = {.budget = 512, .recent_window = 32}, .kv_heads = 6};
  index_t context = 7500;
  const auto rate = [&](index_t slots) {
    return replayed_miss_rate(trace(), shape, context, slots, 100);
  };
  const double recorded = rate(1024);
  REQUIRE(recorded > 0.06);  // 0.094 in the trace itself
  REQUIRE(recorded < 0.13);
  REQUIRE(rate(512) > 1.5 * recorded);
  REQUIRE(rate(2048) < 0.7 * recorded);
  shape.selection = {.budget = 2048, .recent_window = 64};
  context = 34816;
  const double scaled = rate(4096);
  REQUIRE(std::abs(scaled - recorded) < 0.25 * recorded);

  shape.random_share = random_share_for(trace(), shape, context, 4096, 1.5);
  REQUIRE(rate(4096) > 1.3 * scaled);
  REQUIRE(rate(4096) < 1.8 * scaled);
}

TEST_CASE("A growing request keeps what it selects where it was") {
  const ReplayShape shape{.selection = {.budget = 2048}, .kv_heads = 8};
  std::vector<std::int32_t> ids(2048);
  scaled_selection(trace(), shape, 0, 0, 2048, ids.data());
  for (std::int32_t i = 0; i < 2048; ++i) REQUIRE(ids[static_cast<std::size_t>(i)] == i);
  // A request that grows from 6,000 tokens misses no more than one that has them all: 10 %.
  REQUIRE(replayed_miss_rate(trace(), {.selection = {.budget = 2048}, .kv_heads = 2}, 6000, 4096,
                             400) < 0.13);
}

TEST_CASE("A file that is no trace is refused") {
  const std::string path = "bench_trace_test.bin";
  for (const std::string content : {"", "SPXSEL02", "SPXSEL01\x01\x00\x00\x00"}) {
    std::ofstream(path, std::ios::binary) << content;
    REQUIRE_THROWS_AS(RecordedTrace(path), FileError);
  }
  REQUIRE_THROWS_AS(RecordedTrace("there_is_no_such_file"), FileError);
}

}  // namespace spectx::test
