// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdlib>
#include <limits>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/pool_simulation.hpp"

using namespace spectx;

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

PoolPlan small_plan(DType host) {
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
  return plan;
}

/// SPECTX_TEST_OPERATIONS in the environment goes before what the build says.
int num_operations() {
  const char* const asked = std::getenv("SPECTX_TEST_OPERATIONS");
  return asked == nullptr ? SPECTX_TEST_OPERATIONS : std::atoi(asked);
}

}  // namespace

TEST_CASE("random requests, steps, moves, parks and rewinds agree with a plain map") {
  // Seeds that go everywhere in few operations too.
  const auto [seed, host] = GENERATE(table<unsigned, DType>(
      {{1U, DType::f32}, {6U, DType::f32}, {3U, DType::f8_e4m3}, {4U, DType::i8}}));
  CAPTURE(seed, dtype_name(host));
  const auto backend = test::make_backend({.threads = 1, .two_memories = true});
  test::PoolSimulation simulation(*backend, small_shape(), small_plan(host), seed);
  // Means of whole numbers below 2^10: one rounding of the sum's quotient, one of each weight.
  const double tolerance = 256 * static_cast<double>(std::numeric_limits<float>::epsilon());
  const int operations = num_operations() / 4;
  for (int i = 0; i < operations; ++i) {
    CAPTURE(i);
    const double error = simulation.operate();
    if (!(error <= tolerance)) REQUIRE(error <= tolerance);
  }
  // The test has teeth only if it went everywhere.
  REQUIRE(simulation.out_of_memory() > 0);
  REQUIRE(simulation.fetched() > 0);
  REQUIRE(simulation.steps() > operations / 5);
  simulation.close_all();
  const PoolStats stats = simulation.pool().stats();
  REQUIRE(stats.device_used == 0);
  REQUIRE(stats.host_used == 0);
}
