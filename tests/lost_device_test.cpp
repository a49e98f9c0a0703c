// SPDX-License-Identifier: Apache-2.0
// A device that is lost, at any call: one error, and everything can still be given back.
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/deferred_backend.hpp"
#include "support/engine_blocks.hpp"
#include "support/toy_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr SelectionConfig kRule{.budget = 32, .sinks = 2, .recent_window = 16};

/// Two requests whose groups leave and return, one of which is parked, warmed and rewound.
void run(ToyLoop& loop, DeferredBackend& device) {
  const std::array ids = {loop.pool.open(128), loop.pool.open(128)};
  for (const RequestId id : ids) loop.prefill(id, toy_text(50));
  const std::array<std::int32_t, 1> token = {7};
  loop.waits = false;
  for (int n = 0; n < 12; ++n) {
    if (n % 3 == 0) loop.place(ids[0], n % 4);
    if (n % 4 == 1) loop.place(ids[1], (n + 2) % 4);
    if (n == 5) loop.pipeline.park(ids[0], loop.stream);
    if (n == 6) {
      loop.pipeline.resume(ids[0], loop.stream);
      const Batch& batch = loop.pool.schedule(std::array{BatchItem{ids[0], token}}, loop.stream);
      loop.pipeline.warm(batch, loop.head.select(batch, loop.stream), loop.stream);
      loop.pipeline.wait_ready();
    }
    if (n % 5 == 4) loop.pool.rewind(ids[1], loop.pool.length(ids[1]) - 1, loop.stream);
    if (n != 5) loop.step(std::array{BatchItem{ids[0], token}, BatchItem{ids[1], token}});
    device.run_some(9);
  }
}

}  // namespace

TEST_CASE("a lost device gives one error and lets everything be closed") {
  const auto worker = make_backend({.two_memories = true});
  const Lends how = GENERATE(Lends::nothing, Lends::groups);
  const ModelShape shape = toy::Model(*worker, 1).shape;
  const PoolPlan plan = lent(toy_plan(kRule, 64), shape, how, 4 * kToyGroups * 32);
  index_t calls = 0;
  bool was_lost = true;
  for (; was_lost; calls += unless_slow(7, 401)) {
    CAPTURE(how, calls);
    DeferredBackend device(*worker);
    EngineBlocks engine(device, shape, plan);
    ToyLoop loop(device, plan, device.memories(), plan.lends() ? &engine : nullptr);
    device.lose_after(calls);
    was_lost = false;
    try {
      run(loop, device);
    } catch (const Error& error) {
      was_lost = true;
      REQUIRE(std::string(error.what()) == "the device is lost");
    }
    if (was_lost) {
      const std::array<std::int32_t, 1> token = {7};
      while (!loop.pool.needs().empty()) {
        const RequestId id = loop.pool.needs().front().request;
        REQUIRE_THROWS_AS(loop.step({id, token}), Error);
        loop.pool.close(id, loop.stream);
      }
      REQUIRE(engine.held() == 0);
    }
  }
  REQUIRE(calls > 1000);
}
