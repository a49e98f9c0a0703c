// SPDX-License-Identifier: Apache-2.0
// What the prefetch costs a step and its neighbours on a GPU, at Llama-3.1-8B's shape, with
// recorded selections: the way from a selection to the first transfer, the bytes that a hot buffer
// saves, the write-through, and matrix products beside a gather.
#include <algorithm>
#include <optional>

#include "support/host_tier.hpp"
#include "support/pipeline_scene.hpp"

namespace {

using namespace spectx;
using namespace spectx::bench;

constexpr index_t kWarmUp = 10;  // steps

const RecordedTrace& trace() {
  static const RecordedTrace recorded(SPECTX_TRACES "/selection-smollm2-b512.bin");
  return recorded;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

void note(benchmark::State& state, const SceneFigures& f) {
  const auto steps = static_cast<double>(std::max<index_t>(f.steps, 1));
  state.counters["MB_a_step"] = static_cast<double>(f.bytes) * 1e-6 / steps;
  state.counters["GB/s"] = static_cast<double>(f.bytes) * 1e-3 / std::max(f.transfer_us, 1.0);
  state.counters["step_us"] = f.step_us / steps;
}

/// From begin_step on, the selection being there, to the first gather's begin.
void first_transfer(benchmark::State& state) {
  const index_t steps = 32;
  PipelineScene scene(trace(), {.requests = state.range(0), .steps = kWarmUp + steps});
  scene.run(kWarmUp, true);
  for (auto _ : state) {
    const SceneFigures figures = scene.run(steps, true);
    state.SetIterationTime(median(figures.first_transfer_us) * 1e-6);
    state.counters["longest_us"] =
        *std::max_element(figures.first_transfer_us.begin(), figures.first_transfer_us.end());
    note(state, figures);
  }
}

/// Bytes of a step once the buffer is full: it fills in 48 steps.
void hot_buffer(benchmark::State& state) {
  const index_t filling = 48, steps = 64;
  PipelineScene scene(trace(), {.context = 34'816,
                                .hot_buffer = static_cast<double>(state.range(0)) / 2048,
                                .steps = filling + steps});
  scene.run(filling, false);
  for (auto _ : state) {
    const SceneFigures figures = scene.run(steps, false);
    state.SetIterationTime(figures.transfer_us * 1e-6 / static_cast<double>(figures.steps));
    note(state, figures);
  }
}

/// Steps of transfers alone, with their write-through or with none: no batch of 63 rows is due
/// before they end.
void write_through(benchmark::State& state) {
  const index_t steps = 32;
  PipelineScene scene(trace(),
                      {.requests = 16, .write_batch = state.range(0), .steps = kWarmUp + steps});
  scene.run(kWarmUp, false);
  const DeviceTimer timer(cu::cuda_stream(scene.stream()));
  for (auto _ : state) {
    SceneFigures figures;
    state.SetIterationTime(timer.seconds([&] { figures = scene.run(steps, false); }) /
                           static_cast<double>(steps));
    note(state, figures);
  }
}

/// The matrix products of a step of Llama-3.1-8B, in a CUDA graph; the weights of 8 layers serve
/// all 32.
class Products {
 public:
  explicit Products(index_t rows)
      : rows_(rows),
        weights_(memory(), kDistinct * kLayerBytes),
        x_(memory(), rows * kWidest * 2),
        out_(memory(), rows * kWidest * 2),
        graph_(1, [this](int) { run(); }) {}

  double seconds() const { return graph_.seconds(); }

 private:
  static constexpr index_t kHidden = 4096, kFfn = 14336, kQkv = 6144, kWidest = 2 * kFfn;
  static constexpr index_t kDistinct = 8;
  static constexpr index_t kLayerBytes = 2 * kHidden * (kQkv + kHidden + 3 * kFfn);

  static MemoryResource& memory() { return Gpu::get().backend->memories().device; }
  void product(std::byte*& weights, index_t in, index_t out) const {
    Gpu& gpu = Gpu::get();
    gpu.backend->matmul({.x = matrix_view(x_.data(), DType::bf16, rows_, in),
                         .w = matrix_view(weights, DType::bf16, out, in),
                         .out = matrix_view(out_.data(), DType::bf16, rows_, out)},
                        gpu.stream);
    weights += in * out * 2;
  }
  void run() const {
    for (index_t layer = 0; layer < 32; ++layer) {
      std::byte* weights = weights_.data() + layer % kDistinct * kLayerBytes;
      product(weights, kHidden, kQkv);
      product(weights, kHidden, kHidden);
      product(weights, kHidden, 2 * kFfn);
      product(weights, kFfn, kHidden);
    }
  }

  index_t rows_;
  Buffer weights_, x_, out_;
  TimedGraph graph_;
};

/// The products of a step, alone and while a gather runs on a stream of high priority.
void products_beside_gather(benchmark::State& state, DType host_dtype) {
  Gpu& gpu = Gpu::get();
  const auto blocks = static_cast<int>(state.range(1));
  const Products products(state.range(0));
  const tier::Gather gather(host_dtype, 8);
  const Stream copy = gpu.backend->make_stream({.high_priority = true});
  std::vector<double> alone;
  for (int i = 0; i < 5; ++i) alone.push_back(products.seconds());
  const DeviceTimer timer(cu::cuda_stream(copy));
  double link = 0;
  std::vector<double> beside;
  for (auto _ : state) {
    constexpr int kGathers = 3;  // last longer than the products
    double seconds = 0;
    const double taken = timer.seconds([&] {
      for (int i = 0; i < kGathers; ++i) gather.run(blocks, copy);
      seconds = products.seconds();
    });
    if (taken < seconds) return state.SkipWithError("the gather ended first");
    link = std::max(link, kGathers * static_cast<double>(gather.bytes()) * 1e-9 / taken);
    beside.push_back(seconds);
    state.SetIterationTime(seconds);
  }
  state.counters["alone_us"] = median(alone) * 1e6;
  state.counters["slower"] = median(beside) / median(alone) - 1;
  state.counters["GB/s"] = link;
}

void with_blocks(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "blocks"});
  for (const index_t rows : {1, 28, 64}) {
    for (const index_t blocks : {2, 3, 4, 8, 16}) b->Args({rows, blocks});
  }
  b->UseManualTime()->Iterations(7)->Unit(benchmark::kMicrosecond);
}

void once(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Iterations(1)->Unit(benchmark::kMicrosecond);
}

BENCHMARK_CAPTURE(products_beside_gather, bf16, DType::bf16)
    ->Name("products_beside_gather/cuda/bf16")
    ->Apply(with_blocks);
BENCHMARK_CAPTURE(products_beside_gather, f8_e4m3, DType::f8_e4m3)
    ->Name("products_beside_gather/cuda/f8_e4m3")
    ->Apply(with_blocks);
BENCHMARK(first_transfer)
    ->Name("first_transfer/cuda/bf16")
    ->ArgName("requests")
    ->Arg(1)
    ->Arg(16)
    ->Apply(once);
BENCHMARK(hot_buffer)
    ->Name("hot_buffer/cuda/bf16")
    ->ArgName("slots")
    ->Arg(2048)
    ->Arg(4096)
    ->Arg(6144)
    ->Apply(once);
BENCHMARK(write_through)
    ->Name("write_through/cuda/bf16")
    ->ArgName("batch")
    ->Arg(16)
    ->Arg(32)
    ->Arg(63)
    ->Apply(once);

}  // namespace

BENCHMARK_MAIN();
