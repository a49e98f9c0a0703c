// SPDX-License-Identifier: Apache-2.0
// attend over bf16 rows: a decode step over everything and over a selection of scattered rows,
// drafts, and a prompt chunk.
#include "support/rows.hpp"

namespace spectx::bench {
namespace {

/// The same number of random tokens for every head, the row's own among them.
struct Chosen {
  Chosen(index_t kv_heads, index_t length, index_t budget)
      : counts(test::at(kv_heads), static_cast<std::int32_t>(budget)) {
    test::Random random(7);
    for (index_t h = 0; h < kv_heads; ++h) {
      const std::vector<std::int32_t> head = random.ascending(budget - 1, length - 1);
      ids.insert(ids.end(), head.begin(), head.end());
      ids.push_back(static_cast<std::int32_t>(length - 1));
    }
  }
  std::vector<std::int32_t> counts, ids;
};

/// The first query head of the last row against the definition.
std::string validate(const ModelSizes& m, const CachedRows& rows, const Tensors& q,
                     const Tensors& out, index_t length, const Chosen* chosen) {
  std::vector<test::KeyAndValue> seen;
  const index_t ranks = chosen == nullptr ? length : chosen->counts[0];
  for (index_t rank = 0; rank < ranks; ++rank) {
    const index_t token = chosen == nullptr ? rank : chosen->ids[test::at(rank)];
    test::KeyAndValue row;
    for (index_t d = 0; d < m.head_dim; ++d) {
      row.k.push_back(rows.element(0, token, d));
      row.v.push_back(rows.element(0, token, d + m.head_dim));
    }
    seen.push_back(row);
  }
  const index_t width = m.query_heads * m.head_dim;
  const std::vector<float> queries = q.read();
  const std::vector<float> outs = out.read();
  const std::size_t last = outs.size() - test::at(width);
  const double scale = 1 / std::sqrt(static_cast<double>(m.head_dim));
  const auto bounds = test::attend_reference(queries.data() + last, seen, m.head_dim, scale);
  return test::outside({outs.begin() + static_cast<index_t>(last),
                        outs.begin() + static_cast<index_t>(last) + m.head_dim},
                       bounds);
}

void run_attend(benchmark::State& state, index_t num_rows, index_t budget) {
  const ModelSizes& m = model(state.range(0));
  const index_t length = state.range(1);
  Backend& backend = Machine::get().backend();
  const CachedRows rows(m, length, true);
  const Chosen chosen(m.kv_heads, length, std::max(budget, index_t{1}));
  const test::BatchData batch(backend, {{.request = {0},
                                         .first = length - num_rows,
                                         .rows = num_rows,
                                         .is_dense = budget == 0,
                                         .selects = budget > 0}});
  const Tensors q(DType::f32, num_rows, m.query_heads * m.head_dim);
  const Tensors out(DType::f32, num_rows, m.query_heads * m.head_dim);
  const auto args = [&](index_t i) {
    KVView kv = rows.view(i);
    kv.counts = budget > 0 ? chosen.counts.data() : nullptr;
    kv.ids = chosen.ids.data();
    kv.max_budget = budget;
    return AttendArgs{.q = q.heads(m.query_heads),
                      .kv = kv,
                      .batch = batch.get(),
                      .out = out.heads(m.query_heads)};
  };
  const auto run = [&](index_t i) { backend.attend(args(i), {}); };
  run(0);
  state.SetLabel(m.name);
  time(state, bytes_moved(args(0)),
       validate(m, rows, q, out, length, budget > 0 ? &chosen : nullptr), run);
  const index_t seen = budget > 0 ? budget : length - num_rows / 2;
  report_flops(state, 4.0 * static_cast<double>(num_rows * m.query_heads * m.head_dim * seen));
}

void attend_all(benchmark::State& state) { run_attend(state, state.range(2), 0); }
void attend_selection(benchmark::State& state) { run_attend(state, 1, state.range(2)); }

BENCHMARK(attend_all)
    ->Name("attend/cpu/bf16")
    ->ArgNames({"model", "length", "rows"})
    ->ArgsProduct({{0}, {2048, 8192}, {1, 4, 8, 512}})
    ->ArgsProduct({{1}, {8192, 32768}, {1}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(attend_selection)
    ->Name("attend_selection/cpu/bf16")
    ->ArgNames({"model", "length", "budget"})
    ->ArgsProduct({{0}, {8192}, {256, 512, 1024}})
    ->ArgsProduct({{1}, {32768}, {2048}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace spectx::bench
