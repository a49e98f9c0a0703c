// SPDX-License-Identifier: Apache-2.0
// matmul at the sizes of a layer, weights in bf16: few rows are bound by the reading of the
// weights, many by arithmetic.
#include "support/rows.hpp"

namespace spectx::bench {
namespace {

struct Product {
  const char* name;
  index_t out, in;
};

Product product(const ModelSizes& m, index_t which) {
  const index_t q = m.query_heads * m.head_dim;
  const index_t kv = m.kv_heads * m.head_dim;
  switch (which) {
    case 0:
      return {"qkv", q + 2 * kv, m.hidden};
    case 1:
      return {"output", m.hidden, q};
    case 2:
      return {"gate and up", 2 * m.ffn, m.hidden};
    case 3:
      return {"down", m.hidden, m.ffn};
    default:
      return {"logits", m.vocabulary, m.hidden};
  }
}

/// Some outputs against a double sum.
std::string validate(const Tensors& x, const Tensors& w, const Tensors& out, index_t in,
                     index_t features) {
  const std::vector<float> xs = x.read();
  const std::vector<float> ws = w.read();
  const std::vector<float> outs = out.read();
  for (index_t o = 0; o < features; o += features / 7 + 1) {
    const test::Dot sum = test::dot(xs.data(), ws.data() + o * in, in);
    const double error = std::abs(static_cast<double>(outs[test::at(o)]) - sum.value);
    if (error > test::kSumSlack * test::kEpsilon * sum.magnitude) return "matmul is wrong";
  }
  return "";
}

void matmul(benchmark::State& state) {
  const Product p = product(model(state.range(0)), state.range(1));
  const index_t rows = state.range(2);
  Backend& backend = Machine::get().backend();
  const Tensors x(DType::f32, rows, p.in);
  const Tensors w(DType::bf16, p.out, p.in, copies_of(p.out * p.in * 2));
  const Tensors out(DType::f32, rows, p.out);
  const auto run = [&](index_t i) {
    backend.matmul({.x = x.view(), .w = w.view(i), .out = out.view()}, {});
  };
  run(0);
  state.SetLabel(std::string(model(state.range(0)).name) + " " + p.name);
  time(state, bytes_moved(MatmulArgs{.x = x.view(), .w = w.view(), .out = out.view()}),
       validate(x, w, out, p.in, p.out), run);
  report_flops(state, 2.0 * static_cast<double>(rows * p.in * p.out));
}

BENCHMARK(matmul)
    ->Name("matmul/cpu/bf16")
    ->ArgNames({"model", "product", "rows"})
    ->ArgsProduct({{0}, {0, 1, 2, 3, 4}, {1, 4, 8}})
    ->ArgsProduct({{0}, {0, 1, 2, 3}, {64, 512}})
    ->ArgsProduct({{1}, {0, 1, 2, 3}, {1, 8}})
    ->Args({1, 1, 512})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace spectx::bench
