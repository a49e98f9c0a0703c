// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/attend_case.hpp"
#include "support/backends.hpp"

// The result of a row may depend on the rows that it sees, in the order of their tokens, and on
// nothing else: every comparison here is of bits.
using namespace spectx;
using namespace spectx::test;

namespace {

using Rows = std::vector<index_t>;

constexpr HeadsShape kHeads{9, 3, 64, 64};
constexpr index_t kTokens = 300;

struct Case {
  AttendCase data{kHeads, DType::bf16, 4, kTokens, 7};
  std::vector<AttendItem> items;
};

/// One item of `rows` rows at the end, over a random half of the tokens.
Case sparse_case(index_t rows) {
  Case c;
  Random random(11);
  const index_t first = kTokens - rows;
  AttendItem item{.item = {.request = {1}, .first = first, .rows = rows, .selects = true},
                  .ids = {},
                  .is_offloaded = false};
  for (index_t h = 0; h < kHeads.kv_heads; ++h) {
    std::vector<std::int32_t> ids = random.ascending(140 + 10 * h, first);
    for (index_t p = first; p < kTokens; ++p) ids.push_back(static_cast<std::int32_t>(p));
    item.ids.push_back(ids);
  }
  c.items = {item};
  return c;
}

}  // namespace

TEST_CASE("attend: slots, pages and residency do not change a bit") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const index_t rows = GENERATE(from_range(values<index_t>({1, 3, 8, 12, 70}, {1, 8, 70})));
  CAPTURE(b.name, rows);
  Case c = sparse_case(rows);
  const std::vector<float> resident = c.data.run(*b.backend, c.items, 1);
  REQUIRE(resident == c.data.run(*b.backend, c.items, 2));
  c.items[0].is_offloaded = true;
  REQUIRE(resident == c.data.run(*b.backend, c.items, 3));
  REQUIRE(resident == c.data.run(*b.backend, c.items, 4));
}

TEST_CASE("attend: naming every token gives the bits of reading all") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const index_t rows = GENERATE(from_range(values<index_t>({1, 2, 8, 9, 64, 65}, {2, 65})));
  const bool is_offloaded = GENERATE(false, true);
  CAPTURE(b.name, rows, is_offloaded);
  Case c;
  AttendItem item{.item = {.request = {2}, .first = kTokens - rows, .rows = rows},
                  .ids = {},
                  .is_offloaded = false};
  const std::vector<float> all = c.data.run(*b.backend, {item});
  item.is_offloaded = true;
  REQUIRE(all == c.data.run(*b.backend, {item}));  // staged
  item.ids.assign(at(kHeads.kv_heads), Random(1).ascending(kTokens, kTokens));
  item.is_offloaded = is_offloaded;
  REQUIRE(all == c.data.run(*b.backend, {item}));
}

TEST_CASE("attend: neighbours in the batch do not change a bit") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const index_t rows = GENERATE(from_range(values<index_t>({1, 5, 40}, {1, 40})));
  CAPTURE(b.name, rows);
  Case c = sparse_case(rows);
  const std::vector<float> alone = c.data.run(*b.backend, c.items);
  const AttendItem one{.item = {.request = {0}, .first = 129, .rows = 1}, .ids = {}};
  const AttendItem many{.item = {.request = {3}, .first = 0, .rows = 133}, .ids = {}};
  const AttendItem drafts{.item = {.request = {2}, .first = 250, .rows = 6}, .ids = {}};
  std::vector<AttendItem> crowd = {one, many, c.items[0], drafts};
  const std::vector<float> together = c.data.run(*b.backend, crowd);
  const auto begin = together.begin() + (1 + 133) * kHeads.query_heads * kHeads.v_dim;
  REQUIRE(alone == std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(alone.size())));
}

TEST_CASE("attend: rows that a row does not see do not change a bit of it") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  const Case c;
  const auto item = [](index_t first, index_t rows) {
    return AttendItem{.item = {.request = {0}, .first = first, .rows = rows}, .ids = {}};
  };
  const std::vector<float> drafts = c.data.run(*b.backend, {item(252, 8)});
  const std::vector<float> fewer = c.data.run(*b.backend, {item(252, 3)});
  REQUIRE(fewer == std::vector<float>(drafts.begin(),
                                      drafts.begin() + static_cast<std::ptrdiff_t>(fewer.size())));
}

TEST_CASE("attend: an infinite value reaches the rows that see it and no other") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const index_t rows = GENERATE(8, 70);
  CAPTURE(b.name, rows);
  Case c;
  const AttendItem item{.item = {.request = {0}, .first = 200, .rows = rows}, .ids = {}};
  std::vector<Bound> expected = c.data.expected({item});
  c.data.spoil(0, 200 + rows / 2);
  const std::vector<float> out = c.data.run(*b.backend, {item});
  const auto first = static_cast<std::ptrdiff_t>(rows / 2 * kHeads.query_heads * kHeads.v_dim);
  expected.resize(static_cast<std::size_t>(first));
  REQUIRE(outside({out.begin(), out.begin() + first}, expected) == "");
  REQUIRE(std::none_of(out.begin() + first, out.end(), [](float x) { return std::isfinite(x); }));
}

TEST_CASE("attend: the number of threads does not change a bit") {
  const index_t rows = GENERATE(1, 8, 70);
  CAPTURE(rows);
  const Case c = sparse_case(rows);
  const std::vector<float> one = c.data.run(*make_backend({.threads = 1}), c.items);
  REQUIRE(one == c.data.run(*make_backend({.threads = 2}), c.items));
  REQUIRE(one == c.data.run(*make_backend({.threads = 3}), c.items));
}
