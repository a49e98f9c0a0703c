// SPDX-License-Identifier: Apache-2.0
// top_k of the middle of a request's scores.
#include "support/rows.hpp"
#include "support/selection_reference.hpp"

namespace spectx::bench {
namespace {

void top_k(benchmark::State& state) {
  const ModelSizes& m = model(state.range(0));
  const index_t length = state.range(1);
  const SelectionConfig rule{.budget = state.range(2)};
  Backend& backend = Machine::get().backend();
  const test::BatchData batch(backend, decoding(length));
  const Tensors scores(DType::f32, 1, m.kv_heads * length);
  const std::size_t entries = test::at(m.kv_heads * rule.budget);
  const test::DeviceArray<std::int32_t> ids(backend, std::vector<std::int32_t>(entries));
  const test::DeviceArray<std::int32_t> counts(backend,
                                               std::vector<std::int32_t>(test::at(m.kv_heads)));
  const TopKArgs args{
      .scores = scores.heads(m.kv_heads),
      .batch = batch.get(),
      .rule = rule,
      .out = {.ids = ids, .counts = counts, .coverage = {}, .max_budget = rule.budget}};
  const auto run = [&](index_t) { backend.top_k(args, {}); };
  run(0);
  std::vector<float> first = scores.read();
  first.resize(test::at(length));
  std::vector<std::int32_t> chosen = ids.read();
  chosen.resize(test::at(rule.budget));
  const bool is_right = chosen == test::top_k_reference(first, length, rule);
  state.SetLabel(m.name);
  time(state, bytes_moved(args), is_right ? "" : "top_k is wrong", run);
}

BENCHMARK(top_k)
    ->Name("top_k/cpu/f32")
    ->ArgNames({"model", "length", "budget"})
    ->ArgsProduct({{0}, {2048, 8192}, {256, 512, 1024}})
    ->ArgsProduct({{1}, {131072}, {2048}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace spectx::bench
