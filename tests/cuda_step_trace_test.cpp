// SPDX-License-Identifier: Apache-2.0
// The device's spans of whole steps, of a move and of a warm, by the device's own clock.
#include "catch.hpp"
#include "spectx/cuda/backend.hpp"
#include "support/cuda_capture.hpp"
#include "support/cuda_device.hpp"
#include "support/spans.hpp"

using namespace spectx;
using namespace spectx::test;
using detail::StepTrace;

namespace {

constexpr index_t kResident = 1;  // groups of kToyGroups

/// One request, partly off the device, that decodes; then another one leaves and is warmed.
template <class Loop>
struct Scene {
  template <class... More>
  explicit Scene(Backend& backend, More... more)
      : loop(backend, toy_plan({.budget = 48, .sinks = 2, .recent_window = 16}, 64), more...) {
    id = loop.pool.open(256);
    loop.place(id, kResident);
    loop.prefill(id, toy_text(70));
    static_cast<void>(loop.pipeline.report());
  }
  void step() {
    const std::array<std::int32_t, 1> token = {7};
    const BatchItem item{id, token};
    loop.step(std::span(&item, 1));
    static_cast<void>(loop.pipeline.report());
  }
  void leave_and_warm() {
    const RequestId other = loop.pool.open(256);
    loop.prefill(other, toy_text(70, 5));
    loop.place(other, 0);
    loop.place(other, 0);  // settled
    const std::array<std::int32_t, 1> token = {9};
    const Batch& batch = loop.pool.schedule(std::array{BatchItem{other, token}}, loop.stream);
    loop.pipeline.warm(batch, loop.head.select(batch, loop.stream), loop.stream);
    loop.pipeline.wait_ready();
    static_cast<void>(loop.pipeline.report());
  }

  Loop loop;
  RequestId id;
};

/// Spans of one step that went well, all others being gone.
void check_step(const Spans& spans) {
  const auto steps = spans.named("step", TraceLane::compute);
  const auto gathers = spans.named("gather", TraceLane::copy);
  const auto written = spans.named("write_through", TraceLane::copy);
  REQUIRE(steps.size() == 1);
  REQUIRE(gathers.size() == kToyGroups - kResident);
  REQUIRE(written.size() == 1);
  REQUIRE(steps[0]->end_ns > steps[0]->begin_ns);
  std::int64_t last = steps[0]->begin_ns;  // one stream copies: one span after the other
  for (std::size_t g = 0; g < gathers.size(); ++g) {
    CAPTURE(g);
    REQUIRE(gathers[g]->group == kResident + static_cast<index_t>(g));
    REQUIRE(gathers[g]->begin_ns >= last);
    REQUIRE(gathers[g]->end_ns >= gathers[g]->begin_ns);
    last = gathers[g]->end_ns;
  }
  REQUIRE(last < steps[0]->end_ns);  // its last layers read what came
  REQUIRE(written[0]->begin_ns >= last);
  REQUIRE(written[0]->end_ns >= written[0]->begin_ns);
}

template <class Loop, class... More>
void check_trace(More... more) {
  Spans spans;
  const auto backend = cu::make_backend({.trace = spans.sink()});
  Scene<Loop> scene(*backend, more...);
  std::int64_t before = StepTrace::now_ns();
  for (int n = 0; n < 5; ++n) {
    CAPTURE(n);
    spans.all.clear();
    scene.step();
    check_step(spans);
    REQUIRE(spans.all[0].begin_ns >= before);
    before = spans.all[0].end_ns;
    REQUIRE(before <= StepTrace::now_ns());
  }
  spans.all.clear();
  scene.leave_and_warm();
  const auto moves = spans.named("move", TraceLane::move);
  const auto warms = spans.named("warm", TraceLane::warm);
  REQUIRE(moves.size() == 1);
  REQUIRE(warms.size() == 1);
  REQUIRE(moves[0]->begin_ns >= before);
  REQUIRE(moves[0]->end_ns > moves[0]->begin_ns);
  REQUIRE(warms[0]->begin_ns >= moves[0]->end_ns);
  REQUIRE(warms[0]->end_ns > warms[0]->begin_ns);
  REQUIRE(warms[0]->end_ns <= StepTrace::now_ns());
}

}  // namespace

TEST_CASE("spans of a step that is run are in order, and those of a move and a warm follow") {
  if (device() == nullptr) return;
  check_trace<ToyLoop>();
}

TEST_CASE("spans of a step in a CUDA graph are in order, and those of a move and a warm follow") {
  if (device() == nullptr) return;
  check_trace<ReplayLoop>(capture_by(cudaStreamCaptureModeThreadLocal));
}
