// SPDX-License-Identifier: Apache-2.0
// Groups that change their tier, requests that are parked, and steps that go on meanwhile.
#include <array>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/deferred_backend.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

std::unique_ptr<Backend> two_memories() {
  return make_backend({.threads = 1, .two_memories = true});
}

/// `arena_pages` with room for two requests of 60 tokens and no more.
PoolPlan tight_plan(index_t arena_pages) {
  PoolPlan plan = pool_plan();
  plan.head_kv_heads = 0;
  plan.arena_pages = arena_pages;
  return plan;
}

void decode(RowLoop& loop, RequestId id, int steps) {
  for (int n = 0; n < steps; ++n) loop.step({loop.item(id, 1)}, n);
}

}  // namespace

TEST_CASE("groups go to the host and come back with every row") {
  const index_t length = GENERATE(from_range(values<index_t>({0, 7, 24, 60}, {60})));
  const std::int32_t from = GENERATE(0, 1, 2, 3);
  const std::int32_t to = GENERATE(0, 1, 2, 3);
  CAPTURE(length, from, to);
  if (is_slow_run() && from + to != 3) return;
  const auto backend = two_memories();
  RowLoop loop(*backend, pool_shape(), pool_plan());
  const index_t at_start = loop.pool.stats().device_used;
  const RequestId id = loop.open(120);
  loop.place(id, from);
  loop.prefill(id, length);
  decode(loop, id, 3);
  loop.place(id, to);
  decode(loop, id, 6);
  REQUIRE(loop.pool.resident_groups(id) == to);
  REQUIRE(loop.pool.stats().stalled_batches == 0);
  const index_t pages = ceil_div(length + 9, 4);
  REQUIRE(loop.pool.stats().device_used - at_start ==
          (to * pages + (3 - to) * 8 + ceil_div(length + 9, 40)) * loop.pool.layout().page_bytes);
  REQUIRE(loop.pool.stats().host_used == (3 - to) * pages * loop.pool.layout().page_bytes);
  loop.step({loop.item(id, 20, true)});  // reads every row
  REQUIRE(loop.wrong_rows == 0);
  loop.pool.close(id, loop.stream);
  REQUIRE(loop.pool.stats().device_used == at_start);
  REQUIRE(loop.pool.stats().host_used == 0);
}

TEST_CASE("a move that has no room waits until there is some") {
  const auto backend = two_memories();
  RowLoop loop(*backend, pool_shape(), tight_plan(3 * 15 + 7));
  const RequestId id = loop.open(120);
  loop.prefill(id, 60);  // 45 pages; 7 are free, slots of one group take 8
  loop.place(id, 0);
  REQUIRE(loop.pool.needs()[0].moving_to == -1);
  loop.place(id, 2);
  REQUIRE(loop.pool.needs()[0].moving_to == -1);
  loop.rewind(id, 40);
  loop.place(id, 2);
  REQUIRE(loop.pool.needs()[0].moving_to == 2);
  decode(loop, id, 3);
  REQUIRE(loop.pool.resident_groups(id) == 2);
  REQUIRE(loop.pool.needs()[0].moving_to == -1);
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("a batch that needs the pages of a leaving group waits for it, and says so") {
  const auto worker = two_memories();
  DeferredBackend backend(*worker);
  RowLoop loop(backend, pool_shape(), tight_plan(3 * 15 + 8));
  loop.waits = false;
  const RequestId id = loop.open(120);
  loop.prefill(id, 60);
  loop.place(id, 2);
  REQUIRE(loop.pool.needs()[0].moving_to == 2);
  REQUIRE(loop.pool.resident_groups(id) == 2 + 1);
  // While a group may leave before the step, drafts have the window of an offloaded request.
  REQUIRE_THROWS_AS(loop.pool.schedule(std::array{loop.item(id, 5)}, loop.stream), InvalidArgument);
  REQUIRE(loop.pool.needs()[0].moving_to == 2);
  loop.step({loop.item(id, 4)}, 3);  // one page in each group; none is free
  REQUIRE(loop.pool.stats().stalled_batches == 1);
  REQUIRE(loop.pool.resident_groups(id) == 2);
  decode(loop, id, 10);
  loop.step({loop.item(id, 2, true)});
  REQUIRE(loop.pool.stats().stalled_batches == 1);
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("a group that finds no room when it arrives stays on the host") {
  const auto worker = two_memories();
  DeferredBackend backend(*worker);
  RowLoop loop(backend, pool_shape(), tight_plan(2 * 15 + 8 + 15 + 2));
  loop.waits = false;
  const RequestId id = loop.open(120);
  loop.place(id, 2);
  loop.prefill(id, 60);
  const index_t before = loop.pool.stats().device_used;
  loop.place(id, 3);  // 15 pages beside the slots: two are left
  REQUIRE(loop.pool.needs()[0].moving_to == 3);
  loop.step({loop.item(id, 1)});  // takes them; the group would need one more
  REQUIRE(loop.pool.needs()[0].moving_to == 3);
  backend.run_all();  // it arrives
  loop.step({loop.item(id, 1)});
  REQUIRE(loop.pool.needs()[0].moving_to == -1);
  REQUIRE(loop.pool.resident_groups(id) == 2);
  REQUIRE(loop.pool.stats().device_used - before == 2 * loop.pool.layout().page_bytes);
  decode(loop, id, 10);
  loop.step({loop.item(id, 2, true)});
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("rewind, park and close give up a move under way") {
  const auto worker = two_memories();
  DeferredBackend backend(*worker);
  RowLoop loop(backend, pool_shape(), pool_plan());
  loop.waits = false;
  const index_t at_start = loop.pool.stats().device_used;
  const RequestId id = loop.open(120);
  const std::int32_t from = GENERATE(1, 3);
  const std::int32_t to = GENERATE(0, 2);
  CAPTURE(from, to);
  loop.place(id, from);
  loop.prefill(id, 50);
  const PoolStats before = loop.pool.stats();
  loop.place(id, to);
  REQUIRE(loop.pool.needs()[0].moving_to == to);
  REQUIRE(loop.pool.stats().device_used > before.device_used);
  loop.rewind(id, 50);
  REQUIRE(loop.pool.needs()[0].moving_to == -1);
  REQUIRE(loop.pool.stats().device_used == before.device_used);
  REQUIRE(loop.pool.stats().host_used == before.host_used);
  decode(loop, id, 3);
  loop.place(id, to);
  loop.pipeline.park(id, loop.stream);
  loop.pipeline.resume(id, loop.stream);
  decode(loop, id, 3);
  loop.place(id, to == 0 ? 3 : to);
  loop.pool.close(id, loop.stream);
  backend.run_all();
  REQUIRE(loop.pool.stats().device_used == at_start);
  REQUIRE(loop.pool.stats().host_used == 0);
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("a parked request keeps its rows in the host tier and its keys on the device") {
  const auto worker = two_memories();
  DeferredBackend backend(*worker);
  RowLoop loop(backend, pool_shape(), pool_plan());
  loop.waits = false;
  const std::int32_t resident = GENERATE(0, 1, 3);
  CAPTURE(resident);
  const index_t at_start = loop.pool.stats().device_used;
  const RequestId id = loop.open(120);
  loop.place(id, resident);
  loop.prefill(id, 50);
  decode(loop, id, 6);
  loop.pipeline.park(id, loop.stream);
  REQUIRE(loop.pool.state(id) == RequestState::parked);
  REQUIRE(loop.pool.needs()[0].is_parked);
  REQUIRE(loop.pool.length(id) == 56);
  REQUIRE(loop.pool.stats().device_used - at_start == 2 * loop.pool.layout().page_bytes);
  REQUIRE(loop.pool.stats().host_used == 3 * 14 * loop.pool.layout().page_bytes);
  loop.place(id, 1);  // nothing happens to a parked request
  REQUIRE(loop.pool.state(id) == RequestState::parked);

  loop.pipeline.resume(id, loop.stream);
  REQUIRE(loop.pool.state(id) == RequestState::prefill);
  REQUIRE(loop.pool.resident_groups(id) == 0);
  loop.warm({loop.item(id, 1)}, 5);
  REQUIRE(loop.pool.state(id) == RequestState::warming);
  REQUIRE_THROWS_AS(loop.pool.schedule(std::array{loop.item(id, 1)}, loop.stream), InvalidArgument);
  loop.pipeline.wait_ready();
  REQUIRE(loop.pool.state(id) == RequestState::ready);
  loop.step({loop.item(id, 1)}, 5);
  loop.pipeline.wait_ready();
  REQUIRE(loop.pipeline.report().misses == 0);
  decode(loop, id, 20);
  REQUIRE(loop.wrong_rows == 0);
}
