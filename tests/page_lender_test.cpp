// SPDX-License-Identifier: Apache-2.0
// Pools whose resident groups live in a host engine's pages.
#include <array>

#include "catch.hpp"
#include "spectx/memory_planner.hpp"
#include "support/backends.hpp"
#include "support/deferred_backend.hpp"
#include "support/engine_blocks.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"
#include "support/toy_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

std::unique_ptr<Backend> two_memories() {
  return make_backend({.threads = 1, .two_memories = true});
}

/// pool_plan() with `pages` lent pages and an arena for slots and keys.
PoolPlan lent_plan(Lends how, index_t pages) {
  PoolPlan plan = pool_plan();
  plan.arena_pages = 3 * (3 * 8 + 10);
  return lent(plan, pool_shape(), how, pages);
}

/// A prompt, groups that come and go, drafts, a park, a second request that comes and goes.
ToyTrace run(ToyLoop& loop, bool moves_all) {
  ToyDecode main{.id = loop.pool.open(256)};
  loop.prefill(main.id, toy_text(70));
  const ToyTrace trace = main.run(loop, unless_slow(40, 8), [&](int n) {
    const int all_or_none = n % 12 < 6 ? 0 : static_cast<int>(kToyGroups);
    if (n % 6 == 1) loop.place(main.id, moves_all ? n % 4 : all_or_none);
    if (n % 20 == 3) {
      const RequestId other = loop.pool.open(256);
      loop.prefill(other, toy_text(40 + n));
      loop.pool.close(other, loop.stream);
    }
    if (n % 15 == 10) loop.pipeline.park(main.id, loop.stream);
    if (n % 15 == 10) loop.pipeline.resume(main.id, loop.stream);
  });
  loop.pool.close(main.id, loop.stream);
  return trace;
}

/// `call` is refused the lend that is named, as OutOfMemory, and changes nothing; then it goes.
template <class Call>
void insist(RowLoop& loop, EngineBlocks& engine, index_t refuse_at, Call&& call) {
  const Seen before(loop.pool);
  const index_t held = engine.held();
  engine.refuse_at = engine.lends + refuse_at;
  try {
    call();
  } catch (const OutOfMemory& error) {
    REQUIRE((error.tier() == Tier::lender && error.bytes_asked() > 0));
    REQUIRE(Seen(loop.pool) == before);
    REQUIRE(engine.held() == held);
    call();
  }
  engine.refuse_at = -1;
}

}  // namespace

TEST_CASE("attention over lent pages gives the bits of a pool with its own") {
  // No result shows who lends, in which order rows lie in a page, or which stream runs when.
  const auto [how, order, seed] =
      GENERATE(table<Lends, PageOrder, unsigned>({{Lends::groups, PageOrder::heads, 0},
                                                  {Lends::groups, PageOrder::rows, 1},
                                                  {Lends::groups, PageOrder::split_rows, 2},
                                                  {Lends::blocks, PageOrder::heads, 1},
                                                  {Lends::blocks, PageOrder::split_heads, 2},
                                                  {Lends::tensors, PageOrder::heads, 2},
                                                  {Lends::tensors, PageOrder::split_rows, 1}}));
  CAPTURE(how, order, seed);
  if (is_slow_run() && (how != Lends::blocks || seed != 1)) return;
  const auto worker = two_memories();
  const PoolPlan own = toy_plan({.budget = 48, .sinks = 2, .recent_window = 16}, 64);
  const bool moves_all = how == Lends::groups;
  ToyLoop expected(*worker, own);
  const ToyTrace undisturbed = run(expected, moves_all);

  DeferredBackend deferred(*worker, seed);  // what no event orders runs when it likes
  Backend& backend = seed == 0 ? *worker : deferred;
  PoolPlan plan = lent(own, expected.model.shape, how, 2 * kToyGroups * 32);
  plan.page_order = order;
  EngineBlocks engine(backend, expected.model.shape, plan);
  ToyLoop loop(backend, plan, backend.memories(), &engine);
  loop.waits = seed == 0;
  REQUIRE(run(loop, moves_all) == undisturbed);
  REQUIRE(engine.lends > 0);
  REQUIRE(engine.held() == 0);
  REQUIRE_FALSE(engine.is_misused);
}

TEST_CASE("every lend may be refused, and what was there stays usable") {
  const Lends how = GENERATE(Lends::groups, Lends::blocks);
  const auto backend = two_memories();
  const PoolPlan plan = lent_plan(how, 3 * 3 * 30);
  const index_t stride = unless_slow(1, 3);
  index_t refused = 0;
  for (index_t refuse_at = 0; refuse_at < 6; refuse_at += stride) {
    CAPTURE(how, refuse_at);
    EngineBlocks engine(*backend, pool_shape(), plan);
    RowLoop loop(*backend, pool_shape(), plan, &engine);
    const RequestId a = loop.open(120);
    const RequestId b = loop.open(120);
    insist(loop, engine, refuse_at, [&] {
      loop.step({loop.item(a, 20, true), loop.item(b, 17, true)});
    });
    insist(loop, engine, refuse_at, [&] { loop.warm({loop.item(a, 6), loop.item(b, 4)}); });
    loop.place(a, 0);
    loop.step({loop.item(a, 1), loop.item(b, 1)});
    REQUIRE(loop.pool.resident_groups(a) == 0);
    REQUIRE(loop.pool.stats().lent == engine.held_bytes());
    for (index_t n = 0; n < 6; ++n) {  // a return is tried again later
      engine.refuse_at = engine.lends + (refuse_at + n) % 6;
      loop.place(a, 3);
      engine.refuse_at = -1;
      loop.step({loop.item(a, 1)}, n);
    }
    loop.place(a, 3);
    loop.step({loop.item(a, 1), loop.item(b, 1)});
    REQUIRE(loop.pool.resident_groups(a) == 3);
    loop.step({loop.item(a, 4, true)});
    REQUIRE(loop.wrong_rows == 0);
    REQUIRE(loop.pool.stats().lent == engine.held_bytes());
    REQUIRE_FALSE(engine.is_misused);
    refused += engine.refused;
  }
  REQUIRE(refused * stride > (how == Lends::groups ? 12 : 4));
}

TEST_CASE("an engine that has no pages gets those of groups that leave") {
  const Lends how = GENERATE(Lends::groups, Lends::blocks);
  CAPTURE(how);
  const auto backend = two_memories();
  const PoolPlan plan = lent_plan(how, 3 * 15);
  EngineBlocks engine(*backend, pool_shape(), plan);
  RowLoop loop(*backend, pool_shape(), plan, &engine);
  const RequestId a = loop.open(120);
  const RequestId b = loop.open(120);
  loop.prefill(a, 60);
  REQUIRE(engine.held() == 3 * 15);
  REQUIRE_THROWS_AS(loop.pool.schedule(std::array{loop.item(b, 1, true)}, loop.stream),
                    OutOfMemory);
  loop.waits = false;
  loop.place(a, how == Lends::blocks ? 0 : 2);  // under way: the batch waits for it
  loop.step({loop.item(b, 8, true)});
  loop.step({loop.item(a, 2), loop.item(b, 1)});
  REQUIRE(loop.pool.resident_groups(a) == (how == Lends::blocks ? 0 : 2));
  REQUIRE(engine.held() == (how == Lends::blocks ? 0 : 2 * 16) + 3 * 3);
  loop.rewind(b, 4);
  REQUIRE(engine.held() == (how == Lends::blocks ? 0 : 2 * 16) + 3);
  loop.pipeline.park(a, loop.stream);
  REQUIRE(engine.held() == 3);
  loop.pool.close(b, loop.stream);
  REQUIRE(engine.held() == 0);
  REQUIRE(loop.pool.stats().lent == 0);
  loop.pipeline.resume(a, loop.stream);
  loop.step({loop.item(a, 1)}, 1);
  REQUIRE(loop.wrong_rows == 0);
  REQUIRE_FALSE(engine.is_misused);
}

TEST_CASE("blocks of all groups leave and return together") {
  const auto backend = two_memories();
  const PoolPlan plan = lent_plan(Lends::tensors, 3 * 3 * 30);
  EngineBlocks engine(*backend, pool_shape(), plan);
  RowLoop loop(*backend, pool_shape(), plan, &engine);
  const RequestId id = loop.open(120);
  loop.prefill(id, 30);
  REQUIRE(engine.lends == 1);
  REQUIRE_THROWS_AS(loop.place(id, 1), InvalidArgument);
  loop.place(id, 0);
  loop.step({loop.item(id, 1)});
  REQUIRE(engine.held() == 0);
  loop.place(id, 3);
  loop.step({loop.item(id, 1)}, 1);
  REQUIRE(engine.held() == 3 * 8);
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("plan and lender belong together") {
  const auto backend = two_memories();
  const auto refuses = [&](const PoolPlan& plan, PageLender* lender) {
    REQUIRE_THROWS_AS(KVPool(*backend, pool_shape(), plan, backend->memories(), lender),
                      InvalidArgument);
  };
  const PoolPlan plan = lent_plan(Lends::groups, 30);
  EngineBlocks engine(*backend, pool_shape(), plan);
  refuses(plan, nullptr);
  refuses(pool_plan(), &engine);
  PoolPlan without_pages = pool_plan();
  without_pages.lent_group_stride = 64;
  refuses(without_pages, nullptr);
}
