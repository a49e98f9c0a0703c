// SPDX-License-Identifier: Apache-2.0
// score and coverage of a retrieval head of the target's shape, keys in bf16.
#include "support/rows.hpp"
#include "support/selection_reference.hpp"

namespace spectx::bench {
namespace {

constexpr float kScale = 0.125F;

struct Head {
  Head(const ModelSizes& sizes, index_t cached)
      : m(sizes),
        length(cached),
        backend(Machine::get().backend()),
        keys(m, length, false),
        batch(backend, decoding(length)),
        q(DType::f32, 1, m.query_heads * m.head_dim),
        log_sum(DType::f32, 1, m.query_heads),
        scores(DType::f32, 1, m.kv_heads * length) {}

  ScoreArgs args(index_t i) const {
    return {.q = q.heads(m.query_heads),
            .keys = keys.view(i),
            .batch = batch.get(),
            .reduce = GroupReduce::max,
            .scale = kScale,
            .log_sum = log_sum.view(),
            .scores = scores.heads(m.kv_heads)};
  }
  /// The first KV head against the definition.
  std::string validate() const {
    std::vector<std::vector<std::vector<float>>> queries(1);
    const std::vector<float> all = q.read();
    for (index_t g = 0; g < m.query_heads / m.kv_heads; ++g) {
      const auto begin = all.begin() + g * m.head_dim;
      queries[0].emplace_back(begin, begin + m.head_dim);
    }
    std::vector<std::vector<float>> rows(test::at(length));
    for (index_t n = 0; n < length; ++n) {
      for (index_t d = 0; d < m.head_dim; ++d) {
        rows[test::at(n)].push_back(static_cast<float>(keys.element(0, n, d)));
      }
    }
    const test::ScoreReference expected(queries, rows, static_cast<double>(kScale),
                                        GroupReduce::max);
    const std::vector<float> found = scores.read();
    return test::outside({found.begin(), found.begin() + length}, expected.scores);
  }

  ModelSizes m;
  index_t length;
  Backend& backend;
  CachedRows keys;
  test::BatchData batch;
  Tensors q, log_sum, scores;
};

void score(benchmark::State& state) {
  const Head head(model(state.range(0)), state.range(1));
  const auto run = [&](index_t i) { head.backend.score(head.args(i), {}); };
  run(0);
  state.SetLabel(head.m.name);
  time(state, bytes_moved(head.args(0)), head.validate(), run);
}

void coverage(benchmark::State& state) {
  const Head head(model(state.range(0)), state.range(1));
  const index_t budget = state.range(2);
  std::vector<std::int32_t> ids, map(test::at(head.m.kv_heads));
  std::iota(map.begin(), map.end(), 0);
  for (index_t h = 0; h < head.m.kv_heads; ++h) {
    const std::vector<std::int32_t> chosen =
        test::Random(static_cast<std::uint32_t>(h)).ascending(budget, head.length);
    ids.insert(ids.end(), chosen.begin(), chosen.end());
  }
  std::vector<std::int32_t> counts(map.size(), static_cast<std::int32_t>(budget));
  std::vector<float> covered(2 * map.size());
  head.backend.score(head.args(0), {});
  const auto args = [&](index_t i) {
    const index_t entries = static_cast<index_t>(ids.size());
    return CoverageArgs{.q = head.q.heads(head.m.query_heads),
                        .keys = head.keys.view(i),
                        .batch = head.batch.get(),
                        .scale = kScale,
                        .log_sum = head.log_sum.view(),
                        .head_of_kv_head = {map.data(), head.m.kv_heads},
                        .selection = {.ids = {ids.data(), entries},
                                      .counts = {counts.data(), head.m.kv_heads},
                                      .coverage = {covered.data(), 2 * head.m.kv_heads},
                                      .max_budget = budget}};
  };
  head.backend.coverage(args(0), {});
  const bool is_share = std::all_of(covered.begin(), covered.end(),
                                    [](float share) { return share > 0 && share < 1; });
  state.SetLabel(head.m.name);
  time(state, bytes_moved(args(0)), is_share ? "" : "coverage is no share",
       [&](index_t i) { head.backend.coverage(args(i), {}); });
}

BENCHMARK(score)
    ->Name("score/cpu/bf16")
    ->ArgNames({"model", "length"})
    ->ArgsProduct({{0}, {2048, 8192, 32768}})
    ->ArgsProduct({{1}, {32768}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(coverage)
    ->Name("coverage/cpu/bf16")
    ->ArgNames({"model", "length", "budget"})
    ->ArgsProduct({{0}, {8192}, {256, 512, 1024}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace spectx::bench
