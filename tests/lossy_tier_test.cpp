// SPDX-License-Identifier: Apache-2.0
// Which rows a host tier of a smaller type changes: those that come back from it, and no others.
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

PoolPlan lossy_plan() {
  PoolPlan plan = pool_plan(DType::f32);
  plan.host_dtype = GENERATE(DType::f8_e4m3, DType::i8);
  return plan;
}

/// Rows that a step of the request reads, all layers and heads: its own, and those that it selects.
struct Reads {
  explicit Reads(const RowLoop& loop)
      : layers_and_heads(loop.pool.view().layers * loop.pool.shape().kv_heads),
        selected(layers_and_heads * loop.pool.plan().selection.budget) {}
  index_t layers_and_heads, selected;
};

/// Steps, and counts the rows of it that were changed.
index_t lossy_rows_of(RowLoop& loop, const BatchItem& item, index_t phase = 0) {
  const index_t before = loop.lossy_rows;
  loop.step({item}, phase);
  REQUIRE(loop.wrong_rows == 0);
  return loop.lossy_rows - before;
}

}  // namespace

TEST_CASE("rows that stay on the device stay exact") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  RowLoop loop(*backend, pool_shape(), lossy_plan());
  const RequestId id = loop.open(120);
  loop.prefill(id, 90);
  for (int n = 0; n < 10; ++n) {
    REQUIRE(lossy_rows_of(loop, loop.item(id, 1), n) == 0);
    REQUIRE_FALSE(loop.pipeline.report().is_lossy);
  }
  // A group that leaves takes its slots along: only what is fetched changes.
  loop.place(id, 0);
  index_t phase = 9;
  REQUIRE(lossy_rows_of(loop, loop.item(id, 1), phase) < Reads(loop).selected / 4);
  REQUIRE(loop.pipeline.report().is_lossy);
  const index_t misses = loop.pipeline.report().misses;
  phase = 0;
  const index_t changed = lossy_rows_of(loop, loop.item(id, 1), phase);
  REQUIRE(loop.pipeline.report().misses > 0);
  REQUIRE(changed <= (misses + loop.pipeline.report().misses) * loop.pool.view().layers);
  REQUIRE(changed > 0);
  // What has been there stays changed when its group comes back.
  loop.place(id, 3);
  loop.step({loop.item(id, 1)});
  REQUIRE(loop.pool.resident_groups(id) == 3);
  REQUIRE(lossy_rows_of(loop, loop.item(id, 1)) > 0);
  REQUIRE(loop.pipeline.report().is_lossy);
  const RequestId other = loop.open(120);
  loop.prefill(other, 50);
  REQUIRE(lossy_rows_of(loop, loop.item(other, 1)) == 0);
  REQUIRE_FALSE(loop.pipeline.report().is_lossy);
}

TEST_CASE("a request that was parked goes on with the rows of the host tier") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  RowLoop loop(*backend, pool_shape(), lossy_plan());
  const RequestId id = loop.open(120);
  loop.prefill(id, 90);
  const auto park = [&] {
    loop.pipeline.park(id, loop.stream);
    loop.pipeline.resume(id, loop.stream);
    loop.warm({loop.item(id, 1)});
  };
  park();
  const Reads reads(loop);
  // All but the step's own row.
  REQUIRE(lossy_rows_of(loop, loop.item(id, 1)) == reads.selected - reads.layers_and_heads);
  REQUIRE(loop.pipeline.report().is_lossy);
  park();  // and what came back loses no more
  REQUIRE(lossy_rows_of(loop, loop.item(id, 1)) == reads.selected - reads.layers_and_heads);
}

TEST_CASE("a prompt's later chunks read its earlier rows from the host tier") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  RowLoop loop(*backend, pool_shape(), lossy_plan());
  const RequestId id = loop.open(120);
  loop.place(id, 1);
  REQUIRE(lossy_rows_of(loop, loop.item(id, 40, true)) == 0);
  REQUIRE_FALSE(loop.pipeline.report().is_lossy);
  const KVPoolView& view = loop.pool.view();
  const index_t offloaded = (view.layers - view.layers_of(0)) * loop.pool.shape().kv_heads;
  REQUIRE(lossy_rows_of(loop, loop.item(id, 30, true)) == 40 * offloaded);
  REQUIRE(loop.pipeline.report().is_lossy);
}
