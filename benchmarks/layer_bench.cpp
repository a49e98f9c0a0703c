// SPDX-License-Identifier: Apache-2.0
// What a layer does beside its products and its attention: embed, rms_norm, rope, swiglu, add,
// argmax, append_rows. A decode row stays in the caches, a prompt chunk does not.
#include "support/rows.hpp"

namespace spectx::bench {
namespace {

void embed(benchmark::State& state) {
  const ModelSizes& m = model(state.range(0));
  const index_t rows = state.range(1);
  Backend& backend = Machine::get().backend();
  const Tensors table(DType::bf16, m.vocabulary, m.hidden);
  const Tensors out(DType::f32, rows, m.hidden);
  const std::vector<std::int32_t> tokens = test::Random(3).permutation(rows);
  const EmbedArgs args{.table = table.view(), .tokens = {tokens.data(), rows}, .out = out.view()};
  const auto run = [&](index_t) { backend.embed(args, {}); };
  run(0);
  const std::vector<float> entries = table.read();
  const bool is_right = out.read()[0] == entries[test::at(tokens[0] * m.hidden)];
  state.SetLabel(m.name);
  time(state, bytes_moved(args), is_right ? "" : "embed is wrong", run);
}

void rms_norm(benchmark::State& state) {
  const ModelSizes& m = model(state.range(0));
  Backend& backend = Machine::get().backend();
  const Tensors x(DType::f32, state.range(1), m.hidden);
  const Tensors weight(DType::f32, 1, m.hidden);
  const Tensors out(DType::f32, state.range(1), m.hidden);
  const RmsNormArgs args{.x = x.view(),
                         .weight = vector_view(weight.view().data, DType::f32, m.hidden),
                         .out = out.view()};
  const auto run = [&](index_t) { backend.rms_norm(args, {}); };
  run(0);
  const std::vector<float> xs = x.read();
  const double scale = 1 / std::sqrt(test::dot(xs.data(), xs.data(), m.hidden).value /
                                         static_cast<double>(m.hidden) +
                                     static_cast<double>(args.eps));
  const double expected =
      static_cast<double>(xs[0]) * scale * static_cast<double>(weight.read()[0]);
  const double error = std::abs(static_cast<double>(out.read()[0]) - expected);
  const bool is_right = error <= test::kSumSlack * test::kEpsilon * std::abs(expected);
  state.SetLabel(m.name);
  time(state, bytes_moved(args), is_right ? "" : "rms_norm is wrong", run);
}

void rope(benchmark::State& state) {
  const ModelSizes& m = model(state.range(0));
  const index_t rows = state.range(1);
  Backend& backend = Machine::get().backend();
  const Tensors x(DType::f32, rows, m.query_heads * m.head_dim);
  const std::vector<std::int32_t> positions(test::at(rows), 0);  // the values must not grow
  const std::vector<float> frequency(test::at(m.head_dim / 2), 0.01F);
  const RopeArgs args{.x = x.heads(m.query_heads),
                      .position = {positions.data(), rows},
                      .frequency = {frequency.data(), m.head_dim / 2}};
  const std::vector<float> before = x.read();
  const auto run = [&](index_t) { backend.rope(args, {}); };
  run(0);
  state.SetLabel(m.name);
  time(state, bytes_moved(args), x.read() == before ? "" : "rope moved position 0", run);
}

void swiglu(benchmark::State& state) {
  const ModelSizes& m = model(state.range(0));
  Backend& backend = Machine::get().backend();
  const Tensors gate(DType::f32, state.range(1), m.ffn);
  const Tensors up(DType::f32, state.range(1), m.ffn);
  const Tensors out(DType::f32, state.range(1), m.ffn);
  const SwigluArgs args{.gate = gate.view(), .up = up.view(), .out = out.view()};
  const auto run = [&](index_t) { backend.swiglu(args, {}); };
  run(0);
  const double g = static_cast<double>(gate.read()[0]);
  const double expected = g / (1 + std::exp(-g)) * static_cast<double>(up.read()[0]);
  const double error = std::abs(static_cast<double>(out.read()[0]) - expected);
  const bool is_right = error <= test::kSumSlack * test::kEpsilon * std::abs(expected);
  state.SetLabel(m.name);
  time(state, bytes_moved(args), is_right ? "" : "swiglu is wrong", run);
}

void add(benchmark::State& state) {
  const ModelSizes& m = model(state.range(0));
  Backend& backend = Machine::get().backend();
  const Tensors a(DType::f32, state.range(1), m.hidden);
  const Tensors out(DType::f32, state.range(1), m.hidden);
  const AddArgs args{.a = a.view(), .b = a.view(), .out = out.view()};
  const auto run = [&](index_t) { backend.add(args, {}); };
  run(0);
  const bool is_right = out.read()[0] == 2 * a.read()[0];
  state.SetLabel(m.name);
  time(state, bytes_moved(args), is_right ? "" : "add is wrong", run);
}

void argmax(benchmark::State& state) {
  const ModelSizes& m = model(state.range(0));
  Backend& backend = Machine::get().backend();
  const Tensors logits(DType::f32, 1, m.vocabulary);
  std::int32_t best = -1;
  const ArgmaxArgs args{.logits = logits.view(), .out = {&best, 1}};
  const auto run = [&](index_t) { backend.argmax(args, {}); };
  run(0);
  const std::vector<float> values = logits.read();
  const bool is_right = std::max_element(values.begin(), values.end()) - values.begin() == best;
  state.SetLabel(m.name);
  time(state, bytes_moved(args), is_right ? "" : "argmax is wrong", run);
}

void append_rows(benchmark::State& state) {
  const ModelSizes& m = model(state.range(0));
  const index_t rows = state.range(1);
  Backend& backend = Machine::get().backend();
  const CachedRows cache(m, 8192, true);
  const test::BatchData batch(
      backend, {{.request = {0}, .first = 8192 - rows, .rows = rows, .is_dense = true}});
  const Tensors k(DType::f32, rows, m.kv_heads * m.head_dim);
  const Tensors v(DType::f32, rows, m.kv_heads * m.head_dim);
  const auto args = [&](index_t i) {
    return AppendRowsArgs{.k = k.heads(m.kv_heads),
                          .v = v.heads(m.kv_heads),
                          .batch = batch.get(),
                          .to = cache.view(i)};
  };
  backend.append_rows(args(0), {});
  const double expected = static_cast<double>(to_float(from_float<bf16_t>(k.read()[0])));
  const bool is_right = cache.element(0, 8192 - rows, 0) == expected;
  state.SetLabel(m.name);
  time(state, bytes_moved(args(0)), is_right ? "" : "append_rows is wrong",
       [&](index_t i) { backend.append_rows(args(i), {}); });
}

void both_sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"model", "rows"})
      ->ArgsProduct({{0, 1}, {1, 512}})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

BENCHMARK(embed)->Name("embed/cpu/bf16")->Apply(both_sizes);
BENCHMARK(rms_norm)->Name("rms_norm/cpu/f32")->Apply(both_sizes);
BENCHMARK(rope)->Name("rope/cpu/f32")->Apply(both_sizes);
BENCHMARK(swiglu)->Name("swiglu/cpu/f32")->Apply(both_sizes);
BENCHMARK(add)->Name("add/cpu/f32")->Apply(both_sizes);
BENCHMARK(append_rows)->Name("append_rows/cpu/bf16")->Apply(both_sizes);
BENCHMARK(argmax)
    ->Name("argmax/cpu/f32")
    ->ArgName("model")
    ->DenseRange(0, 1)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace spectx::bench
