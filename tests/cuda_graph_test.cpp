// SPDX-License-Identifier: Apache-2.0
// A decode step in a CUDA graph, replayed while lengths grow, placements change and requests come
// and go, gives the bits of steps that are run.
#include <memory>

#include "catch.hpp"
#include "spectx/cuda/backend.hpp"
#include "support/cuda_capture.hpp"
#include "support/cuda_device.hpp"
#include "support/device_data.hpp"
#include "support/random.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

/// A product that cuBLAS makes, which takes more scratch than the operations of a decode step.
struct Product {
  explicit Product(Backend& backend)
      : a(backend, DType::f32, 40, 64, Random(1).normal(40 * 64)),
        w(backend, DType::f32, 56, 64, Random(2).normal(56 * 64)),
        out(backend, DType::f32, 40, 56) {}

  void run(Backend& backend, StreamView stream) const {
    backend.matmul({.x = a.view(), .w = w.view(), .out = out.view()}, stream);
  }

  DeviceMatrix a, w, out;
};

}  // namespace

TEST_CASE("200 steps in CUDA graphs give the bits of steps that are run") {
  const auto b = device();
  if (b == nullptr) return;
  const cudaStreamCaptureMode mode =
      GENERATE(from_range(values({cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed},
                                 {cudaStreamCaptureModeThreadLocal})));
  const SelectionConfig rule = replay_rule(GENERATE(false, true));
  CAPTURE(mode, rule.has_guard());
  if (is_slow_run() && !rule.has_guard()) return;
  ReplayScene<ReplayLoop> replayed(rule, *b, capture_by(mode));
  ReplayScene<ToyLoop> run(rule, *b);
  const Product product(*b);
  const int steps = unless_slow(200, 8);
  for (int n = 0; n < steps; ++n) {
    CAPTURE(n);
    REQUIRE(difference(replayed.step(n), run.step(n)) == "");
    if (n == steps / 2)
      product.run(*b, replayed.loop.stream);  // its scratch grows: the graphs keep theirs
  }
  if (is_slow_run()) return;
  REQUIRE(replayed.loop.replays == 199);  // once, drafts of a request that does not select yet
  REQUIRE(replayed.loop.graphs.size() == 3);
  REQUIRE(replayed.loop.pipeline.report().misses > 0);
}

TEST_CASE("a host that runs ahead of replays reads whole figures") {
  const auto b = device();
  if (b == nullptr) return;
  const PoolPlan plan = toy_plan({.budget = 48, .sinks = 2, .recent_window = 16}, 64);
  const int steps = unless_slow(120, 4);
  /// Step -> path, hits, misses, bytes, as reports showed them.
  using Figures = std::map<index_t, std::array<index_t, 4>>;
  const auto decode = [steps](auto& loop, auto&& step) {
    std::array<RequestId, 3> ids{};
    for (int i = 0; i < 3; ++i) {
      RequestId& id = ids[static_cast<std::size_t>(i)];
      id = loop.pool.open(256);
      loop.place(id, 2 * i);  // the last stays resident
      loop.prefill(id, toy_text(60 + 10 * i, 5));
    }
    Figures figures;
    for (int n = 0; n < steps; ++n) {
      const std::int32_t token = n * 7 % 256;
      std::vector<BatchItem> items;
      for (const RequestId id : ids) items.push_back({id, std::span(&token, 1)});
      step(items);
      const StepReport& r = loop.pipeline.report();
      if (r.path == Path::mixed) {
        figures[r.step] = {static_cast<index_t>(r.path), r.hits, r.misses, r.bytes};
        REQUIRE(r.groups.size() == 4);
        REQUIRE(r.step_us > r.exposed_us);
      }
    }
    return figures;
  };
  ReplayLoop replayed(*b, plan, capture_by(cudaStreamCaptureModeThreadLocal));
  const std::array<Event, 2> done = {b->make_event(), b->make_event()};
  std::size_t launches = 0;
  const Figures seen = decode(replayed, [&](const std::vector<BatchItem>& items) {
    const Event& before = done[launches++ % 2];
    while (!b->is_done(before)) {  // the host is two steps ahead, not more
    }
    replayed.launch(replayed.pool.schedule(items, replayed.stream));
    b->record(before, replayed.stream);
  });
  ToyLoop run(*b, plan);
  const Figures expected =
      decode(run, [&](const std::vector<BatchItem>& items) { run.step(items); });
  REQUIRE(replayed.replays == steps);
  REQUIRE((is_slow_run() || seen.size() > 10));
  REQUIRE(expected.size() == static_cast<std::size_t>(steps));
  for (const auto& [step, figures] : seen) {
    CAPTURE(step);
    REQUIRE(figures == expected.at(step));
  }
  b->synchronize(replayed.stream);
}

TEST_CASE("scratch that grows in a capture stays where the graph knows it") {
  const auto b = device();
  if (b == nullptr) return;
  const Product product(*b);
  const Stream stream = b->make_stream();
  REQUIRE_THROWS_AS(
      capture(stream, cudaStreamCaptureModeThreadLocal, [&] { product.run(*b, stream); }),
      InvalidArgument);  // the stream's first operation
  b->fill(product.out.view().data, 0, 4, stream);
  b->synchronize(stream);
  const auto graph =
      capture(stream, cudaStreamCaptureModeThreadLocal, [&] { product.run(*b, stream); });
  const std::vector<float> nothing = product.out.read();
  check(cudaGraphLaunch(*graph, cu::cuda_stream(stream)));
  b->synchronize(stream);
  const std::vector<float> got = product.out.read();
  REQUIRE(got != nothing);
  run_on(*b, [&](StreamView other) { product.run(*b, other); });
  REQUIRE(product.out.read() == got);
}

TEST_CASE("pageable memory is refused in a capture") {
  const auto b = device();
  if (b == nullptr) return;
  const DeviceArray<int> from(*b, {1, 2, 3});
  const DeviceArray<int> pinned(*b, {0, 0, 0}, Tier::host);
  std::vector<int> pageable(3);
  const Stream stream = b->make_stream();
  b->fill(pinned.data(), 0, 4, stream);
  b->synchronize(stream);
  const auto copy = [&](void* to, const void* source) {
    return capture(stream, cudaStreamCaptureModeThreadLocal,
                   [&] { b->copy(to, source, 12, stream); });
  };
  REQUIRE_THROWS_AS(copy(pageable.data(), from.data()), Unsupported);
  REQUIRE_THROWS_AS(copy(from.data(), pageable.data()), Unsupported);
  const auto graph = copy(pinned.data(), from.data());
  REQUIRE(pinned.read() == std::vector{0, 0, 0});
  check(cudaGraphLaunch(*graph, cu::cuda_stream(stream)));
  b->synchronize(stream);
  REQUIRE(pinned.read() == std::vector{1, 2, 3});
}
