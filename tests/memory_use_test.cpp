// SPDX-License-Identifier: Apache-2.0
// The planner predicts to the byte what the components allocate and what requests hold.
#include <memory>
#include <optional>

#include "catch.hpp"
#include "spectx/memory_planner.hpp"
#include "support/backends.hpp"
#include "support/deferred_backend.hpp"
#include "support/engine_blocks.hpp"
#include "support/limited_memory.hpp"
#include "support/toy_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

PlannerConfig config_of(const toy::Model& model) {
  PlannerConfig config;
  config.device_bytes = 6 << 20;
  config.host_bytes = 8 << 20;
  config.selection = {.budget = 64, .sinks = 2, .recent_window = 20};
  config.head = model.head.shape;
  config.max_requests = 5;
  config.max_length = 333;
  config.max_step_rows = 77;
  config.page_rows = 16;
  config.hot_buffer = 1.5;
  config.write_batch = 8;
  return config;
}

/// With the pages of resident groups in a host engine's cache.
void lend(PlannerConfig& config, Lends how) {
  if (how == Lends::nothing) return;
  config.lent_bytes = 4 << 20;
  config.device_bytes += 4 << 20;
  config.lends_whole_requests = how == Lends::blocks;
}

}  // namespace

TEST_CASE("predicted bytes are the bytes that are allocated") {
  const bool has_host_tier = GENERATE(false, true);
  const bool has_head = GENERATE(false, true);
  const index_t page_rows = GENERATE(7, 16);
  const index_t max_budget = GENERATE(0, 150);  // more than the hot buffer
  const bool lends = GENERATE(false, true);
  CAPTURE(has_host_tier, has_head, page_rows, max_budget, lends);
  if (is_slow_run() && (page_rows == 16 || !has_head || lends)) return;
  const auto worker = make_backend({.threads = 1, .two_memories = true});
  AllocationCounter counter;
  LimitedMemory device(worker->memories().device, Tier::device, counter);
  LimitedMemory host(worker->memories().host, Tier::host, counter);
  {
    DeferredBackend backend(*worker, {device, host});
    const toy::Model model(*worker, 1);
    PlannerConfig config = config_of(model);
    config.force_host_tier = has_host_tier;
    config.has_one_memory = !has_host_tier;
    config.page_rows = page_rows;
    config.selection.max_budget = max_budget;
    config.selection.min_coverage = max_budget > 0 ? 0.9F : 0;
    if (!has_head) config.head = {};
    if (lends) lend(config, Lends::groups);
    MemoryPlanner planner(model.shape, config);
    REQUIRE(planner.pool_plan().has_host_tier() == has_host_tier);
    REQUIRE((!has_host_tier || planner.pool_plan().slots >= std::max<index_t>(96, max_budget)));
    const MemoryUse use = planner.predict({});

    std::optional<EngineBlocks> engine;
    if (lends) engine.emplace(*worker, model.shape, planner.pool_plan());
    KVPool pool(backend, model.shape, planner.pool_plan(), backend.memories(),
                engine ? &*engine : nullptr);
    REQUIRE(device.held_bytes() == use.arena + use.staging + use.pool_tables);
    REQUIRE(pool.stats().device_total == device.held_bytes());
    const PrefetchPipeline pipeline(backend, pool, {});
    REQUIRE(device.held_bytes() == use.device_own() - use.head_workspace);
    if (has_head) {
      const RetrievalHead head(backend, pool, model.head, {}, backend.memories());
      REQUIRE(head.device_bytes() == use.head_workspace);
      REQUIRE(device.held_bytes() == use.device_own());
    }
    REQUIRE(use.device_total() <= config.device_bytes);
    REQUIRE(host.held_bytes() == pool.layout().host_figure_bytes());
    backend.run_all();
  }
  REQUIRE(counter.live == 0);
}

TEST_CASE("the components take all their bytes from the memories that the pool was given") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  AllocationCounter counter;
  LimitedMemory device(backend->memories().device, Tier::device, counter);
  LimitedMemory host(backend->memories().host, Tier::host, counter);
  const toy::Model sizes(*backend, 1);
  PlannerConfig config = config_of(sizes);
  config.force_host_tier = true;
  MemoryPlanner planner(sizes.shape, config);
  const ToyLoop loop(*backend, planner.pool_plan(), {device, host});
  REQUIRE(device.held_bytes() == planner.predict({}).device_own());
  REQUIRE(host.held_bytes() == loop.pool.layout().host_figure_bytes() + 4);  // the head's NaN flag
}

TEST_CASE("predicted use is what requests hold, wherever they are") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  const toy::Model sizes(*backend, 1);
  PlannerConfig config = config_of(sizes);
  config.force_host_tier = true;
  const auto [how, host_dtype] =
      GENERATE(from_range(combinations(std::vector{Lends::nothing, Lends::groups, Lends::blocks},
                                       std::vector{DType::f32, DType::f8_e4m3, DType::i8})));
  config.host_dtype = host_dtype;
  lend(config, how);
  MemoryPlanner planner(sizes.shape, config);
  std::optional<EngineBlocks> engine;
  if (how != Lends::nothing) engine.emplace(*backend, sizes.shape, planner.pool_plan());
  ToyLoop loop(*backend, planner.pool_plan(), backend->memories(), engine ? &*engine : nullptr);
  const auto groups = static_cast<std::int32_t>(loop.pool.layout().groups);
  const auto check = [&] {
    const MemoryUse use = planner.predict(loop.pool.needs());
    REQUIRE(use.arena_used() == loop.pool.stats().device_used);
    REQUIRE(use.lent_rows == loop.pool.stats().lent);
    REQUIRE(use.lent_rows == (engine ? engine->held_bytes() : 0));
    REQUIRE(use.host_rows == loop.pool.stats().host_used);
    REQUIRE(loop.pool.stats().host_total <= use.host_cap);
  };
  check();
  for (int n = 0; n < 5; ++n) {
    CAPTURE(n);
    const RequestId id = loop.pool.open(333);
    if (n % 2 == 0) loop.place(id, 0);
    loop.prefill(id, toy_text(40 + unless_slow(50, 5) * n));
    check();
  }
  for (int n = 0; n < unless_slow(12, 2); ++n) {
    CAPTURE(n);
    const RequestId id{n % 5};
    const std::array<std::int32_t, 1> token = {3};
    loop.step({id, token});
    loop.place(id, n % 2 == 0 ? groups : 0);
    check();  // with both copies
    loop.step({id, token});
    check();
    if (n % 3 == 0) {
      loop.pipeline.park(id, loop.stream);
      check();
      loop.pipeline.resume(id, loop.stream);
      check();
    }
  }
  for (int n = 0; n < 5; ++n) loop.pool.close({n}, loop.stream);
  check();
  REQUIRE(loop.pool.stats().device_used == 0);
  REQUIRE(loop.pool.stats().lent == 0);
}
