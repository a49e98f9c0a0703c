// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/batches.hpp"
#include "support/random.hpp"
#include "support/selection_reference.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

using Ids = std::vector<std::int32_t>;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct TopKCase {
  SelectionConfig rule;
  std::vector<ScheduledItem> items;
  index_t head_kv_heads, max_length;
  Ids head_of_kv_head;
  index_t max_budget;
  bool saw_nan = false;  // written
  Ids budgets{};         // [items]; empty: the rule's

  /// ids[item * kv_heads + head]; a count of kAllTokens gives {kAllTokens}.
  std::vector<Ids> run(Backend& backend, const std::vector<float>& scores) {
    const index_t num_items = static_cast<index_t>(items.size());
    const index_t kv_heads = static_cast<index_t>(head_of_kv_head.size());
    const BatchData batch(backend, items);
    const DeviceMatrix table(backend, DType::f32, num_items, head_kv_heads * max_length, scores);
    const DeviceArray<std::int32_t> map(backend, head_of_kv_head);
    const DeviceArray<std::int32_t> ids(backend, Ids(at(num_items * kv_heads * max_budget), -5));
    const DeviceArray<std::int32_t> counts(backend, Ids(at(num_items * kv_heads), -5));
    const DeviceArray<std::int32_t> own_budgets(backend, budgets);
    const DeviceArray<std::int32_t> nan(backend, {saw_nan ? 1 : 0});
    run_on(backend, [&](StreamView stream) {
      backend.top_k(
          {.scores = table.heads(head_kv_heads),
           .batch = batch.get(),
           .rule = rule,
           .budgets = own_budgets,
           .head_of_kv_head = map,
           .out = {.ids = ids, .counts = counts, .coverage = {}, .max_budget = max_budget},
           .saw_nan = nan.data()},
          stream);
    });
    saw_nan = nan.read()[0] != 0;
    std::vector<Ids> all;
    const Ids flat = ids.read();
    for (const std::int32_t count : counts.read()) {
      const auto begin = flat.begin() + static_cast<index_t>(all.size()) * max_budget;
      all.push_back(count < 0 ? Ids{count} : Ids(begin, begin + count));
    }
    return all;
  }
};

/// One item of `length` tokens with one head.
TopKCase single(index_t length, SelectionConfig rule) {
  return {rule, {{.request = {0}, .first = length - 1, .rows = 1, .selects = true}},
          1,    length,
          {0},  rule.budget};
}

}  // namespace

TEST_CASE("top_k equals a sort of everything") {
  const NamedBackend b = GENERATE(from_range(backends()));
  using Numbers = std::vector<index_t>;
  const auto [length, budget, has_ties] =
      GENERATE(from_range(combinations(Numbers{1, 2, 20, 21, 22, 63, 64, 65, 257, 1000, 20'000},
                                       Numbers{255, 6, 20, 64}, std::vector{false, true})));
  CAPTURE(b.name, length, budget, has_ties);
  Random random(static_cast<std::uint32_t>(length + budget));
  const std::vector<float> scores =
      has_ties ? random.sixtyfourths(length) : random.normal(length, 10);
  TopKCase c = single(length, {.budget = budget, .sinks = 2, .recent_window = 3});
  REQUIRE(c.run(*b.backend, scores)[0] == top_k_reference(scores, length, c.rule));
  REQUIRE_FALSE(c.saw_nan);
}

TEST_CASE("top_k: ties go to the lower id, -0 ties with 0, -infinity is above NaN") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  // ids 1 to 6 are the middle; one sink, one in the window; two are chosen
  TopKCase c = single(8, {.budget = 4, .sinks = 1, .recent_window = 1});
  const auto chosen = [&](std::vector<float> middle) {
    middle.insert(middle.begin(), kInfinity);
    middle.push_back(kNaN);  // in the window: never looked at
    const Ids ids = c.run(*b.backend, middle)[0];
    REQUIRE((ids.front() == 0 && ids.back() == 7));
    return Ids(ids.begin() + 1, ids.end() - 1);
  };
  REQUIRE(chosen({1, 1, 1, 1, 1, 1}) == Ids{1, 2});
  REQUIRE(chosen({0, 3, 1, 3, 2, 3}) == Ids{2, 4});
  REQUIRE(chosen({-1, 0.0F, -0.0F, 0.0F, -2, -3}) == Ids{2, 3});
  REQUIRE(chosen({-1, -0.0F, 0.0F, 0.0F, -2, -3}) == Ids{2, 3});
  REQUIRE(chosen({-kInfinity, -kInfinity, -kInfinity, 5, -kInfinity, -5}) == Ids{4, 6});
  REQUIRE(chosen({kInfinity, 1, kInfinity, kInfinity, 1e38F, 0}) == Ids{1, 3});
  REQUIRE(chosen({-1e-45F, -1, 1e-45F, -1, 0, -1}) == Ids{3, 5});
  REQUIRE_FALSE(c.saw_nan);
  REQUIRE(chosen({kNaN, kNaN, -kInfinity, kNaN, -kInfinity, kNaN}) == Ids{3, 5});
  REQUIRE(c.saw_nan);
  REQUIRE(chosen({kNaN, -kNaN, kNaN, kNaN, kNaN, 1}) == Ids{1, 6});
  REQUIRE(chosen({1, 2, 3, 4, 5, 6}) == Ids{5, 6});
  REQUIRE(c.saw_nan);  // never cleared
}

TEST_CASE("top_k: ragged batches, heads that share scores, items that do not select") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  TopKCase c{{.budget = 16, .sinks = 2, .recent_window = 5},
             {{.request = {3}, .first = 99, .rows = 1, .selects = true},
              {.request = {0}, .first = 0, .rows = 30, .is_dense = true},
              {.request = {1}, .first = 40, .rows = 4, .selects = true},
              {.request = {2}, .first = 10, .rows = 1, .selects = true}},
             2,
             100,
             {0, 1, 1},
             20};
  const std::vector<float> scores = Random(1).normal(4 * 2 * 100);
  const std::vector<Ids> ids = c.run(*b.backend, scores);
  const std::vector<index_t> lengths = {100, 30, 44, 11};
  for (std::size_t item = 0; item < 4; ++item) {
    for (std::size_t head = 0; head < 3; ++head) {
      CAPTURE(item, head);
      const auto begin =
          scores.begin() + static_cast<index_t>(item * 2 + at(c.head_of_kv_head[head])) * 100;
      const Ids expected = item == 1 ? Ids{kAllTokens}
                                     : top_k_reference({begin, begin + 100}, lengths[item], c.rule);
      REQUIRE(ids[item * 3 + head] == expected);
    }
  }
}

TEST_CASE("top_k of no items does nothing") {
  const NamedBackend b = GENERATE(from_range(backends()));
  TopKCase c{{.budget = 16, .sinks = 2, .recent_window = 5}, {}, 1, 100, {0}, 16};
  REQUIRE(c.run(*b.backend, {}).empty());
}

TEST_CASE("top_k: items with budgets of their own, and those that are left as they are") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  TopKCase c{{.budget = 16, .sinks = 2, .recent_window = 5},
             {{.request = {3}, .first = 99, .rows = 1, .selects = true},
              {.request = {1}, .first = 40, .rows = 4, .selects = true},
              {.request = {2}, .first = 10, .rows = 1},
              {.request = {0}, .first = 98, .rows = 1, .selects = true}},
             1,
             100,
             {0, 0},
             50};
  c.budgets = {50, 44, 16, 9};
  const std::vector<float> scores = Random(2).normal(4 * 100);
  const auto scores_of = [&](index_t item) {
    return std::vector<float>(scores.begin() + item * 100, scores.begin() + (item + 1) * 100);
  };
  std::vector<Ids> ids = c.run(*b.backend, scores);
  const std::vector<index_t> lengths = {100, 44, 11, 99};
  for (std::size_t i = 0; i < 8; ++i) {
    CAPTURE(i);
    SelectionConfig rule = c.rule;
    rule.budget = c.budgets[i / 2];
    const auto item = static_cast<index_t>(i / 2);
    REQUIRE(ids[i] ==
            (item == 2 ? Ids{kAllTokens} : top_k_reference(scores_of(item), lengths[i / 2], rule)));
  }
  c.budgets = {0, 17, 0, 0};
  ids = c.run(*b.backend, scores);
  for (const std::size_t i : {0U, 1U, 4U, 5U, 6U, 7U}) REQUIRE(ids[i] == Ids{-5});  // as before
  REQUIRE(ids[2].size() == 17);
}
