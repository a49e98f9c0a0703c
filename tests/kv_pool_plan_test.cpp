// SPDX-License-Identifier: Apache-2.0
// Plans that no planner made.
#include <limits>

#include "catch.hpp"
#include "spectx/kv_pool.hpp"
#include "support/backends.hpp"
#include "support/pool_cases.hpp"

using namespace spectx;
using namespace spectx::test;

TEST_CASE("a pool refuses a plan that cannot work") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  const auto refuses = [&](auto&& change) {
    PoolPlan plan = pool_plan();
    change(plan);
    REQUIRE_THROWS_AS(KVPool(*backend, pool_shape(), plan, backend->memories()), InvalidArgument);
  };
  refuses([](PoolPlan& p) { p.selection.budget = 9; });
  refuses([](PoolPlan& p) { p.selection.sinks = -1; });
  refuses([](PoolPlan& p) { p.max_requests = 0; });
  refuses([](PoolPlan& p) { p.max_length = 0; });
  refuses([](PoolPlan& p) { p.max_length = index_t{1} << 31; });
  refuses([](PoolPlan& p) { p.max_step_rows = 0; });
  refuses([](PoolPlan& p) { p.page_rows = 0; });
  refuses([](PoolPlan& p) { p.group_layers = 0; });
  refuses([](PoolPlan& p) { p.arena_pages = 0; });
  refuses([](PoolPlan& p) { p.page_order = PageOrder::split_rows; });  // k_dim is not v_dim
  refuses([](PoolPlan& p) { p.head_k_dim = 1 << 20; });
  refuses([](PoolPlan& p) { p.slots = 30; });
  refuses([](PoolPlan& p) { p.slots = 20; });
  refuses([](PoolPlan& p) { p.write_batch = 0; });
  refuses([](PoolPlan& p) { p.write_batch = 8; });
  PoolPlan wide = pool_plan();
  wide.selection.budget = wide.slots = 8192;
  REQUIRE_NOTHROW(KVPool(*backend, pool_shape(), wide, backend->memories()));
  refuses([](PoolPlan& p) { p.selection.budget = p.slots = 8196; });
  refuses([](PoolPlan& p) { p.selection.max_budget = p.slots = 8196; });
  PoolPlan lossy = pool_plan();
  lossy.host_dtype = DType::f16;
  REQUIRE_THROWS_AS(KVPool(*backend, pool_shape(), lossy, backend->memories()), Unsupported);
  ModelShape shape = pool_shape();
  shape.kv_heads = 3;
  REQUIRE_THROWS_AS(KVPool(*backend, shape, pool_plan(), backend->memories()), InvalidArgument);
}

TEST_CASE("sizes whose products leave 64 bits are refused before they are multiplied") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  constexpr index_t kMost = std::numeric_limits<index_t>::max();
  const auto refuses = [&](const ModelShape& shape, const PoolPlan& plan) {
    REQUIRE_THROWS_AS(KVPool(*backend, shape, plan, backend->memories()), InvalidArgument);
  };
  for (const auto size : {&PoolPlan::max_requests, &PoolPlan::max_length, &PoolPlan::max_step_rows,
                          &PoolPlan::page_rows, &PoolPlan::group_layers, &PoolPlan::slots,
                          &PoolPlan::arena_pages, &PoolPlan::lent_pages, &PoolPlan::staging_pages,
                          &PoolPlan::host_pages, &PoolPlan::head_kv_heads, &PoolPlan::head_k_dim}) {
    for (const index_t n : {index_t{-1}, kMost}) {
      PoolPlan plan = pool_plan();
      plan.*size = n;
      refuses(pool_shape(), plan);
    }
  }
  PoolPlan budget = pool_plan();
  budget.selection.budget = budget.slots = kMost;
  refuses(pool_shape(), budget);
  PoolPlan long_requests = pool_plan();  // each in its range
  long_requests.max_requests = 1 << 20;
  long_requests.max_length = (index_t{1} << 31) - 1;
  ModelShape wide = pool_shape();
  wide.query_heads = wide.kv_heads = 1 << 20;
  refuses(wide, long_requests);
  wide.kv_heads = kMost;
  refuses(wide, pool_plan());
}
