// SPDX-License-Identifier: Apache-2.0
// A captured step, on the host's memory: capturing runs nothing, and what is replayed later gives
// the bits of a step that was run. cuda_graph_test does the same with CUDA graphs.
#include "catch.hpp"
#include "spectx/cpu/backend.hpp"
#include "support/deferred_backend.hpp"
#include "support/replay_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

/// Replays by the backend's own capture.
ReplayLoop::Launch capture(DeferredBackend& backend, ReplayLoop& loop,
                           const std::function<void()>& step) {
  backend.begin_capture();
  step();
  return [&backend, &loop, graph = backend.end_capture()] { backend.launch(graph, loop.stream); };
}

struct Replays {
  explicit Replays(const SelectionConfig& rule = replay_rule(false))
      : worker(make_cpu_backend({.two_memories = true})),
        backend(*worker),
        scene(rule, backend, [this](ReplayLoop& loop, const std::function<void()>& step) {
          return capture(backend, loop, step);
        }) {}

  std::unique_ptr<Backend> worker;
  DeferredBackend backend;
  ReplayScene<ReplayLoop> scene;
};

}  // namespace

TEST_CASE("200 replayed steps give the bits of steps that are run") {
  const bool has_guard = GENERATE(false, true);
  Replays replays(replay_rule(has_guard));
  ReplayLoop& loop = replays.scene.loop;
  ReplayScene<ToyLoop> run(replay_rule(has_guard), *replays.worker);
  std::array<index_t, 3> guarded{};  // raised, full, limited
  for (int n = 0; n < 200; ++n) {
    CAPTURE(has_guard, n);
    REQUIRE(difference(replays.scene.step(n), run.step(n)) == "");
    const StepReport& report = loop.pipeline.report();
    guarded[0] += report.guard_raised;
    guarded[1] += report.guard_full;
    guarded[2] += report.guard_limited;
  }
  for (const index_t count : guarded) REQUIRE((count > 0) == has_guard);
  REQUIRE(loop.replays == 199);      // once, drafts of a request that does not select yet
  REQUIRE(loop.graphs.size() == 3);  // without a selection, with one, drafts
  REQUIRE(loop.pipeline.report().misses > 0);
  REQUIRE(loop.pipeline.report().path == Path::mixed);
}

TEST_CASE("capturing runs nothing and changes nothing") {
  Replays replays;
  ReplayLoop& loop = replays.scene.loop;
  for (int n = 0; n < 6; ++n) replays.scene.step(n);
  const index_t step = loop.pipeline.report().step;
  const std::array<std::int32_t, 1> token = {1};
  const BatchItem item{loop.pool.needs()[0].request, token};
  const index_t length = loop.pool.length(item.request);
  const Batch& batch = loop.pool.schedule(std::array{item}, loop.stream);
  const StepResult before(loop, 0);
  const auto launch = loop.capture(loop, [&] { loop.enqueue(batch); });
  REQUIRE(difference(StepResult(loop, 0), before) == "");
  REQUIRE(loop.head.can_replay(batch));
  loop.step(std::array{item});  // is run: the step goes on from where it was
  REQUIRE(loop.pool.length(item.request) == length + 1);
  REQUIRE(loop.pipeline.report().step == step + 1);
}

TEST_CASE("what cannot be replayed is refused before anything changes") {
  Replays replays;
  ReplayLoop& loop = replays.scene.loop;
  for (int n = 0; n < 6; ++n) replays.scene.step(n);  // the first request has offloaded groups
  const std::array<std::int32_t, 3> tokens = {1, 2, 3};
  const RequestId offloaded = loop.pool.needs()[0].request;
  const RequestId resident = loop.pool.needs()[1].request;
  const auto one = std::span(tokens).first(1);
  const auto refused = [&](std::vector<BatchItem> items) {
    const Batch& batch = loop.pool.schedule(items, loop.stream);
    REQUIRE_FALSE(loop.pipeline.can_replay(batch));
    REQUIRE_THROWS_AS(loop.pipeline.begin_replay(batch, batch.shape()), InvalidArgument);
    replays.backend.begin_capture();
    REQUIRE_THROWS_AS(loop.pipeline.begin_step(batch, loop.last, loop.stream), InvalidArgument);
    REQUIRE(replays.backend.end_capture().empty());
  };
  refused({});
  refused({{offloaded, one, true}});
  refused({{offloaded, one}, {resident, tokens}});  // as many rows each
  refused({{offloaded, tokens}, {loop.pool.needs()[3].request, tokens, true}});  // not all select

  const Batch& batch = loop.pool.schedule(std::array{BatchItem{offloaded, one}}, loop.stream);
  StepShape other = batch.shape();
  other.items = 2;
  REQUIRE_THROWS_AS(loop.pipeline.begin_replay(batch, other), InvalidArgument);
  loop.head.begin_replay(batch);
  loop.pipeline.begin_replay(batch, batch.shape());
  REQUIRE_THROWS_AS(loop.pipeline.begin_replay(batch, batch.shape()), InvalidArgument);
  loop.graphs.at({4, 4, 4, true});
  loop.pipeline.end_step(loop.stream);

  loop.pool.close(resident, loop.stream);
  const RequestId fresh = loop.pool.open(100);
  const Batch& first = loop.pool.schedule(std::array{BatchItem{fresh, one}}, loop.stream);
  REQUIRE(loop.pipeline.can_replay(first));
  REQUIRE_FALSE(loop.head.can_replay(first));
  REQUIRE_THROWS_AS(loop.head.begin_replay(first), InvalidArgument);
  replays.backend.begin_capture();
  REQUIRE_THROWS_AS(loop.head.select(first, loop.stream), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pool.schedule({}, loop.stream), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pipeline.apply({}, loop.stream), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pipeline.warm(first, loop.last, loop.stream), InvalidArgument);
  REQUIRE(replays.backend.end_capture().empty());
  replays.backend.run_all();
}
