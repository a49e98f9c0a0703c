// SPDX-License-Identifier: Apache-2.0
#include "spectx/kv_pool.hpp"

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

bool is_same(const PoolStats& a, const PoolStats& b) {
  return a.device_used == b.device_used && a.device_total == b.device_total &&
         a.host_used == b.host_used && a.host_total == b.host_total &&
         a.stalled_batches == b.stalled_batches;
}

}  // namespace

TEST_CASE("requests open and close; their ids are used again") {
  const auto backend = two_memories();
  RowLoop loop(*backend, pool_shape(), pool_plan());
  REQUIRE_THROWS_AS(loop.pool.open(0), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pool.open(121), InvalidArgument);
  const PoolStats start = loop.pool.stats();
  const std::array ids = {loop.open(120), loop.open(1), loop.open(60)};
  REQUIRE_THROWS_AS(loop.pool.open(10), InvalidArgument);
  REQUIRE(loop.pool.needs().size() == 3);
  REQUIRE(loop.pool.needs()[2].final_length == 60);
  REQUIRE(loop.pool.needs()[2].moving_to == -1);
  REQUIRE(is_same(loop.pool.stats(), start));

  loop.prefill(ids[0], 50);
  loop.step({loop.item(ids[1], 1)});
  REQUIRE(loop.pool.length(ids[0]) == 50);
  REQUIRE(loop.pool.needs()[0].length == 50);
  REQUIRE(loop.pool.resident_groups(ids[0]) == 3);
  REQUIRE(loop.pool.state(ids[0]) == RequestState::ready);
  // 13 token pages in each of 3 groups and 2 of keys; 1 and 1.
  REQUIRE(loop.pool.layout().key_page_rows == 40);
  REQUIRE(loop.pool.stats().device_used - start.device_used ==
          (3 * 13 + 2 + 3 + 1) * loop.pool.layout().page_bytes);
  for (const RequestId id : ids) loop.pool.close(id, loop.stream);
  loop.pool.close(ids[0], loop.stream);
  loop.pool.close({-1}, loop.stream);
  loop.pool.close({3}, loop.stream);
  REQUIRE(is_same(loop.pool.stats(), start));
  REQUIRE(loop.pool.needs().empty());

  const RequestId again = loop.open(120);
  REQUIRE(again == ids[0]);
  REQUIRE(loop.pool.length(again) == 0);
  loop.prefill(again, 30);
  loop.step({loop.item(again, 1)});
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("questions about what is not there are errors") {
  const auto backend = two_memories();
  RowLoop loop(*backend, pool_shape(), pool_plan());
  const RequestId id = loop.open(100);
  for (const RequestId none : {RequestId{-1}, RequestId{1}, RequestId{3}}) {
    CAPTURE(none.value);
    REQUIRE_THROWS_AS(loop.pool.length(none), InvalidArgument);
    REQUIRE_THROWS_AS(loop.pool.state(none), InvalidArgument);
    REQUIRE_THROWS_AS(loop.pool.resident_groups(none), InvalidArgument);
    REQUIRE_THROWS_AS(loop.pool.rewind(none, 0, loop.stream), InvalidArgument);
    REQUIRE_THROWS_AS(loop.pipeline.park(none, loop.stream), InvalidArgument);
    REQUIRE_THROWS_AS(loop.pipeline.resume(none, loop.stream), InvalidArgument);
  }
  loop.prefill(id, 20);
  REQUIRE_THROWS_AS(loop.pool.rewind(id, 21, loop.stream), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pool.rewind(id, -1, loop.stream), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pool.layer_view(-1), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pool.layer_view(6), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pool.layer_view(2), InvalidArgument);  // sliding
  REQUIRE_THROWS_AS(loop.pool.cached_layer(6), InvalidArgument);
  REQUIRE(loop.pool.cached_layer(2) == -1);
  REQUIRE(loop.pool.cached_layer(3) == 2);
  REQUIRE(loop.pool.layer_view(3).group == 1);
  PoolPlan plan = pool_plan();
  plan.head_kv_heads = 0;
  const KVPool headless(*backend, pool_shape(), plan, backend->memories());
  REQUIRE_THROWS_AS(headless.key_view(), InvalidArgument);
}

TEST_CASE("a batch that cannot be is refused, and nothing has changed") {
  const auto backend = two_memories();
  RowLoop loop(*backend, pool_shape(), pool_plan());
  const RequestId id = loop.open(100);
  const RequestId other = loop.open(100);
  loop.place(other, 1);
  loop.prefill(id, 60);
  loop.prefill(other, 60);
  loop.warm({loop.item(other, 1)});
  const PoolStats before = loop.pool.stats();
  const auto refuses = [&](const std::vector<BatchItem>& items) {
    REQUIRE_THROWS_AS(loop.pool.schedule(items, loop.stream), InvalidArgument);
    REQUIRE(is_same(loop.pool.stats(), before));
    REQUIRE(loop.pool.length(id) == 60);
  };
  const std::array<std::int32_t, 1> too_large = {16}, negative = {-1};
  refuses({loop.item(id, 0)});
  refuses({loop.item({2}, 1)});
  refuses({loop.item({-1}, 1)});
  refuses({{id, too_large}});
  refuses({loop.item(other, 1), {id, negative}});
  refuses({loop.item(id, 1), loop.item(id, 1)});
  refuses({loop.item(id, 1), loop.item(other, 1), loop.item({2}, 1), loop.item({2}, 1)});
  refuses({loop.item(id, 40, true), loop.item(other, 1)});  // more rows than a step's
  refuses({loop.item(id, 9)});                              // more drafts than the window
  refuses({loop.item(other, 5)});                           // the same, and a write batch waits
  loop.step({loop.item(id, 8), loop.item(other, 4)});
  const RequestId small = loop.open(3);
  REQUIRE_THROWS_AS(loop.pool.schedule(std::array{loop.item(small, 4)}, loop.stream),
                    InvalidArgument);
  loop.pipeline.park(other, loop.stream);
  REQUIRE_THROWS_AS(loop.pool.schedule(std::array{loop.item(other, 1)}, loop.stream),
                    InvalidArgument);
  REQUIRE_THROWS_AS(loop.pool.rewind(other, 1, loop.stream), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pipeline.park(other, loop.stream), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pipeline.resume(id, loop.stream), InvalidArgument);
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("an empty batch is nothing, and a batch that is not ended leaves no trace") {
  const auto backend = two_memories();
  RowLoop loop(*backend, pool_shape(), pool_plan());
  const RequestId id = loop.open(100);
  loop.place(id, 1);
  loop.prefill(id, 33);
  loop.step({loop.item(id, 1)});
  const PoolStats before = loop.pool.stats();
  const index_t step = loop.pipeline.report().step;
  loop.step({});
  loop.warm({});
  REQUIRE(is_same(loop.pool.stats(), before));
  REQUIRE(loop.pipeline.report().step == step);

  const bool is_dense = GENERATE(false, true);
  loop.pool.schedule(std::array{loop.item(id, 4, is_dense)}, loop.stream);
  REQUIRE(loop.pool.length(id) == 34);
  REQUIRE(loop.pool.needs()[0].length == 34);
  for (int n = 0; n < 20; ++n) {
    loop.warm({loop.item(id, 3)}, n);  // one that is warmed, and not run
    loop.step({loop.item(id, 1)}, n);
  }
  REQUIRE(loop.pool.length(id) == 54);
  loop.pool.schedule(std::array{loop.item(id, 40, true)}, loop.stream);
  loop.pool.close(id, loop.stream);
  REQUIRE(loop.pool.stats().host_used == 0);
  REQUIRE(loop.rows_read > 1000);
  REQUIRE(loop.wrong_rows == 0);
}
