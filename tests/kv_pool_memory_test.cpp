// SPDX-License-Identifier: Apache-2.0
// Tiers that run out, a host tier that grows, and bytes that are what the layouts say.
#include <array>

#include "catch.hpp"
#include "spectx/memory_planner.hpp"
#include "support/backends.hpp"
#include "support/deferred_backend.hpp"
#include "support/limited_memory.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"
#include "support/toy_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

/// `call` throws OutOfMemory of `tier` with figures that make sense, and changes nothing.
template <class Call>
void fails(RowLoop& loop, Tier tier, Call&& call) {
  const Seen before(loop.pool);
  bool has_thrown = false;
  try {
    call();
  } catch (const OutOfMemory& error) {
    has_thrown = true;
    REQUIRE(error.tier() == tier);
    REQUIRE(error.bytes_asked() > error.bytes_free());
    REQUIRE(error.bytes_free() >= 0);
  }
  REQUIRE(has_thrown);
  REQUIRE(Seen(loop.pool) == before);
}

std::unique_ptr<Backend> two_memories() {
  return make_backend({.threads = 1, .two_memories = true});
}

}  // namespace

TEST_CASE("a device tier that is full refuses a batch as a whole") {
  const auto backend = two_memories();
  PoolPlan plan = pool_plan();
  plan.arena_pages = 3 * 20 + 4;
  RowLoop loop(*backend, pool_shape(), plan);
  const RequestId a = loop.open(120);
  const RequestId b = loop.open(120);
  loop.prefill(a, 64);  // 16 pages in each of 3 groups, 2 of keys; 14 are free
  fails(loop, Tier::device, [&] { loop.step({loop.item(a, 4, true), loop.item(b, 16, true)}); });
  fails(loop, Tier::device, [&] { loop.warm({loop.item(a, 4), loop.item(b, 16, true)}); });
  loop.step({loop.item(a, 4, true), loop.item(b, 8, true)});
  fails(loop, Tier::device, [&] { loop.step({loop.item(b, 9, true)}); });
  loop.step({loop.item(a, 2)});
  loop.pool.close(a, loop.stream);
  loop.prefill(b, 60);
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("so does a host tier, and staging") {
  const auto backend = two_memories();
  PoolPlan plan = pool_plan();
  plan.host_pages = 3 * 12;
  plan.staging_pages = 10;
  RowLoop loop(*backend, pool_shape(), plan);
  const RequestId a = loop.open(120);
  const RequestId b = loop.open(120);
  loop.place(a, 0);
  loop.place(b, 0);
  loop.prefill(a, 33);
  fails(loop, Tier::device, [&] { loop.step({loop.item(a, 8, true)}); });  // 11 pages are staged
  fails(loop, Tier::host, [&] { loop.step({loop.item(b, 16, true)}); });
  loop.prefill(b, 12);
  for (int n = 0; n < 3; ++n) loop.step({loop.item(a, 1)}, n);
  fails(loop, Tier::host, [&] { loop.step({loop.item(a, 1)}); });
  loop.rewind(b, 8);
  for (int n = 0; n < 4; ++n) loop.step({loop.item(a, 1)}, n);

  loop.pool.close(a, loop.stream);
  loop.place(b, 3);
  loop.prefill(b, 50);
  REQUIRE(loop.pool.resident_groups(b) == 3);
  fails(loop, Tier::host, [&] { loop.pipeline.park(b, loop.stream); });
  loop.place(b, 0);  // and a move does not start
  REQUIRE(loop.pool.needs()[0].moving_to == -1);
  loop.rewind(b, 40);
  loop.pipeline.park(b, loop.stream);
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("a park that has no room leaves a move as it is") {
  const auto backend = two_memories();
  PoolPlan plan = pool_plan();
  plan.host_pages = 3 * 14;
  RowLoop loop(*backend, pool_shape(), plan);
  const RequestId a = loop.open(120);
  const RequestId b = loop.open(120);
  loop.prefill(a, 50);
  loop.place(b, 0);
  loop.prefill(b, 8);
  loop.place(a, 1);
  REQUIRE(loop.pool.needs()[0].moving_to == 1);
  fails(loop, Tier::host, [&] { loop.pipeline.park(a, loop.stream); });
  loop.step({loop.item(a, 1)});
  REQUIRE(loop.pool.resident_groups(a) == 1);
  // What a move holds counts: the pages are enough for one request.
  loop.place(a, 3);
  loop.pool.close(b, loop.stream);
  loop.step({loop.item(a, 1)}, 1);
  loop.place(a, 0);
  REQUIRE(loop.pool.needs()[0].moving_to == 0);
  loop.pipeline.park(a, loop.stream);
  loop.pipeline.resume(a, loop.stream);
  loop.step({loop.item(a, 1)}, 2);
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("a request is resumed when there are slots for it") {
  const auto backend = two_memories();
  PoolPlan plan = pool_plan();
  plan.arena_pages = 3 * 20 + 4;
  RowLoop loop(*backend, pool_shape(), plan);
  const RequestId a = loop.open(120);
  const RequestId b = loop.open(120);
  loop.prefill(a, 64);
  loop.pipeline.park(a, loop.stream);
  loop.prefill(b, 50);
  fails(loop, Tier::device, [&] { loop.pipeline.resume(a, loop.stream); });
  loop.rewind(b, 40);
  loop.pipeline.resume(a, loop.stream);
  loop.step({loop.item(a, 1), loop.item(b, 1)});
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("without a host tier nothing can leave") {
  const auto backend = make_backend({.threads = 1});
  RowLoop loop(*backend, pool_shape(), one_tier_plan());
  const RequestId id = loop.open(120);
  loop.prefill(id, 50);
  for (int n = 0; n < 5; ++n) loop.step({loop.item(id, 2)}, n);
  REQUIRE_THROWS_AS(loop.pipeline.park(id, loop.stream), Unsupported);
  REQUIRE_THROWS_AS(loop.place(id, 2), InvalidArgument);
  loop.place(id, 3);
  REQUIRE(loop.pool.state(id) == RequestState::ready);
  REQUIRE(loop.pool.stats().host_total == 0);
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("the host tier grows by chunks as rows need it, and keeps them") {
  const auto backend = two_memories();
  AllocationCounter counter;
  LimitedMemory host(backend->memories().host, Tier::host, counter);
  ModelShape shape = pool_shape();
  shape.layers = 2;
  shape.attention = {};
  shape.kv_heads = 1;
  shape.k_dim = shape.v_dim = 2048;  // a page of 1 MiB, a chunk of 64
  PoolPlan plan = pool_plan();
  plan.page_rows = 32;
  plan.max_length = 32 * 80;
  plan.max_step_rows = 32;
  plan.staging_pages = 80;
  plan.arena_pages = 100;
  plan.host_pages = 70;
  plan.slots = 32;
  RowLoop loop(*backend, shape, plan, {backend->memories().device, host});
  const index_t page = loop.pool.layout().page_bytes;
  REQUIRE(page == index_t{1} << 20);
  const RequestId id = loop.open(plan.max_length);
  const auto grow = [&](index_t rows) {
    const std::vector<std::int32_t> tokens(32, 1);
    for (; rows > 0; rows -= 32) {
      const BatchItem item{id, tokens, true};
      const Batch& batch = loop.pool.schedule(std::array{item}, loop.stream);
      loop.pipeline.begin_step(batch, {}, loop.stream);
      loop.pipeline.end_step(loop.stream);
    }
  };
  const index_t figures = loop.pool.layout().host_figure_bytes();  // the pipeline's
  REQUIRE(host.held_bytes() == figures);
  loop.place(id, 0);
  grow(32);
  REQUIRE(host.held_bytes() == 64 * page + figures);
  REQUIRE(loop.pool.stats().host_total == 64 * page);
  REQUIRE(loop.pool.stats().host_used == page);
  grow(32 * 63);
  REQUIRE(counter.allocations == 2);
  host.set_cap(64 * page + figures);
  fails(loop, Tier::host, [&] { grow(32); });
  host.set_cap(70 * page + figures);
  grow(32 * 6);
  REQUIRE(host.held_bytes() == 70 * page + figures);
  fails(loop, Tier::host, [&] { grow(32); });
  loop.pool.close(id, loop.stream);
  REQUIRE(loop.pool.stats().host_used == 0);
  REQUIRE(host.held_bytes() == 70 * page + figures);
}
