// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/head_case.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr index_t kTokens = 300;

/// Softmax mass of `ids` for every lead and query head of a group: {min, mean}, and what a float
/// may be off: every weight carries the error of its product and of the log sum.
std::vector<Bound> expected(const HeadCase& c, std::size_t item, index_t head,
                            const std::vector<std::int32_t>& ids) {
  const auto keys = c.keys_of(item, head);
  const ScoreReference reference = c.reference(item, head, GroupReduce::max);
  const auto queries = c.queries_of(item, head);
  double least = 1;
  double sum = 0;
  double worst = 0;
  for (std::size_t lead = 0; lead < queries.size(); ++lead) {
    for (std::size_t g = 0; g < queries[lead].size(); ++g) {
      double mass = 0;
      for (const std::int32_t id : ids) {
        if (id < 1 || at(id) >= keys.size()) continue;
        const Dot s = dot(queries[lead][g].data(), keys[at(id)].data(),
                          static_cast<index_t>(keys[at(id)].size()));
        const double scale = static_cast<double>(HeadCase::kScale);
        mass += std::exp(s.value * scale - reference.log_sum[lead][g].expected);
        worst = std::max(worst, kSumSlack * kEpsilon * (s.magnitude * scale + 1) +
                                    reference.log_sum[lead][g].allowed);
      }
      least = std::min(least, mass);
      sum += mass / static_cast<double>(queries.size() * queries[lead].size());
    }
  }
  return {{least, 2 * worst}, {sum, 2 * worst}};
}

std::vector<float> run(HeadCase& c, index_t kv_heads, const std::vector<std::int32_t>& map,
                       const std::vector<std::vector<std::int32_t>>& ids,
                       const std::vector<std::int32_t>& budgets = {}) {
  std::vector<std::int32_t> flat, counts;
  for (const std::vector<std::int32_t>& head : ids) {
    counts.push_back(head.empty() ? kAllTokens : static_cast<std::int32_t>(head.size()));
    flat.insert(flat.end(), head.begin(), head.end());
    flat.resize(counts.size() * at(kTokens), -1);
  }
  const DeviceArray<std::int32_t> device_ids(c.backend(), flat);
  const DeviceArray<std::int32_t> device_counts(c.backend(), counts);
  const DeviceArray<std::int32_t> device_map(c.backend(), map);
  const DeviceArray<std::int32_t> own_budgets(c.backend(), budgets);
  const DeviceArray<float> coverage(c.backend(), std::vector<float>(counts.size() * 2, -1));
  REQUIRE(static_cast<index_t>(map.size()) == kv_heads);
  run_on(c.backend(), [&](StreamView stream) {
    c.backend().coverage({.q = c.q(),
                          .keys = c.keys(),
                          .batch = c.batch(),
                          .scale = HeadCase::kScale,
                          .log_sum = c.log_sum().view(),
                          .budgets = own_budgets,
                          .head_of_kv_head = device_map,
                          .selection = {.ids = device_ids,
                                        .counts = device_counts,
                                        .coverage = coverage,
                                        .max_budget = kTokens}},
                         stream);
  });
  return coverage.read();
}

}  // namespace

TEST_CASE("coverage is the selection's softmax mass, least and mean over a group") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DType dtype = GENERATE(from_range(kRowTypes));
  CAPTURE(b.name, dtype_name(dtype));
  HeadCase c(*b.backend, {6, 2, 80, 80}, dtype, 3, kTokens,
             {{.request = {2}, .first = 280, .rows = 3, .is_dense = false, .selects = true},
              {.request = {1}, .first = 10, .rows = 1},
              {.request = {0}, .first = 120, .rows = 1, .is_dense = false, .selects = true}});
  c.score(GroupReduce::max);
  Random random(4);
  const std::vector<std::int32_t> map = {1, 0, 1};
  std::vector<std::vector<std::int32_t>> ids(9);
  for (std::size_t h = 0; h < 3; ++h) {
    ids[h] = random.ascending(50 + static_cast<index_t>(h), 283);
    ids[6 + h] = random.ascending(40, 121);
  }
  ids[7].clear();  // reads everything
  const std::vector<float> coverage = run(c, 3, map, ids);
  for (const std::size_t entry : {0U, 1U, 2U, 6U, 8U}) {
    CAPTURE(entry);
    const std::vector<float> pair = {coverage[2 * entry], coverage[2 * entry + 1]};
    REQUIRE(outside(pair, expected(c, entry / 3, map[entry % 3], ids[entry])) == "");
  }
  for (const std::size_t entry : {3U, 4U, 5U, 7U}) {
    REQUIRE((coverage[2 * entry] == 1 && coverage[2 * entry + 1] == 1));
  }
  // Items whose budget is 0 are left as they are.
  const std::vector<float> of_some = run(c, 3, map, ids, {0, 0, 40});
  for (std::size_t i = 0; i < 12; ++i) REQUIRE(of_some[i] == -1);
  for (std::size_t i = 12; i < 18; ++i) REQUIRE(of_some[i] == coverage[i]);
}

TEST_CASE("coverage of all tokens is 1, and of a request without candidates too") {
  const NamedBackend b = GENERATE(from_range(backends()));
  HeadCase c(*b.backend, {4, 1, 64, 64}, DType::f32, 2, kTokens,
             {{.request = {0}, .first = 299, .rows = 1, .is_dense = false, .selects = true},
              {.request = {1}, .first = 0, .rows = 1, .is_dense = false, .selects = true}});
  c.score(GroupReduce::max);
  const std::vector<float> coverage = run(c, 1, {0}, {Random(1).ascending(300, 300), {0}});
  const double allowed = expected(c, 0, 0, Random(1).ascending(300, 300))[0].allowed;
  REQUIRE(outside({coverage[0], coverage[1]}, {{1, allowed}, {1, allowed}}) == "");
  REQUIRE((coverage[2] == 1 && coverage[3] == 1));
}
