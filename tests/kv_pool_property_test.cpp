// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/engine_blocks.hpp"
#include "support/pool_simulation.hpp"

using namespace spectx;
using test::EngineBlocks;
using test::Lends;

namespace {

/// Small enough that pages run out, groups are of unequal size and slots must be reused.
ModelShape small_shape() {
  return {.layers = 4,
          .query_heads = 4,
          .kv_heads = 2,
          .k_dim = 4,
          .v_dim = 6,
          .hidden = 8,
          .vocabulary = 16,
          .dtype = DType::f32,
          .rope = {},
          .attention = {AttentionKind::full, AttentionKind::full, AttentionKind::sliding,
                        AttentionKind::full}};
}

PoolPlan small_plan(DType host, Lends how) {
  PoolPlan plan;
  plan.selection = {.budget = 20, .sinks = 1, .recent_window = 8};
  plan.max_requests = 5;
  plan.max_length = 120;
  plan.max_step_rows = 40;
  plan.page_rows = 4;
  plan.group_layers = 2;
  plan.slots = 24;
  plan.staging_pages = 30;
  plan.arena_pages = 80;
  plan.host_pages = 120;
  plan.host_dtype = host;
  plan.write_batch = 4;
  if (how != Lends::nothing) plan.arena_pages = 40;
  if (how != Lends::nothing) plan.page_order = PageOrder::rows;
  return lent(plan, small_shape(), how, 48);
}

/// SPECTX_TEST_OPERATIONS in the environment goes before what the build says.
int num_operations() {
  const char* const asked = std::getenv("SPECTX_TEST_OPERATIONS");
  return asked == nullptr ? SPECTX_TEST_OPERATIONS : std::atoi(asked);
}

}  // namespace

TEST_CASE("random requests, steps, moves, parks and rewinds agree with a plain map") {
  // Seeds that go everywhere in few operations too.
  const auto [seed, host, how] =
      GENERATE(table<unsigned, DType, Lends>({{1U, DType::f32, Lends::nothing},
                                              {6U, DType::f32, Lends::nothing},
                                              {3U, DType::f8_e4m3, Lends::nothing},
                                              {4U, DType::i8, Lends::nothing},
                                              {1U, DType::f32, Lends::groups},
                                              {2U, DType::f32, Lends::blocks}}));
  CAPTURE(seed, dtype_name(host), how);
  const auto backend = test::make_backend({.threads = 1, .two_memories = true});
  const PoolPlan plan = small_plan(host, how);
  std::optional<EngineBlocks> engine;
  if (plan.lends()) engine.emplace(*backend, small_shape(), plan).refuses_of_100 = 10;
  test::PoolSimulation simulation(*backend, small_shape(), plan, seed, engine ? &*engine : nullptr);
  // Means of whole numbers below 2^10: one rounding of the sum's quotient, one of each weight.
  const double tolerance = 256 * static_cast<double>(std::numeric_limits<float>::epsilon());
  const int operations = num_operations() / 4;
  for (int i = 0; i < operations; ++i) {
    CAPTURE(i);
    const double error = simulation.operate();
    if (!(error <= tolerance)) REQUIRE(error <= tolerance);
  }
  // The test has teeth only if it went everywhere; when moves end is up to the device.
  REQUIRE((test::is_slow_run() || simulation.out_of_memory() > 0));
  REQUIRE(simulation.fetched() > 0);
  REQUIRE(simulation.steps() > operations / 5);
  simulation.close_all();
  const PoolStats stats = simulation.pool().stats();
  REQUIRE(stats.device_used == 0);
  REQUIRE(stats.host_used == 0);
  REQUIRE(stats.lent == 0);
  if (!engine) return;
  REQUIRE_FALSE(engine->is_misused);
  REQUIRE(engine->refused > 0);
  REQUIRE(engine->held() == 0);
}
