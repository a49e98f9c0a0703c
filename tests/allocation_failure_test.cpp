// SPDX-License-Identifier: Apache-2.0
// Every allocation may fail: nothing leaks, and what was there stays usable.
#include <new>

#include "catch.hpp"
#include "spectx/memory_planner.hpp"
#include "support/backends.hpp"
#include "support/counted_new.hpp"
#include "support/deferred_backend.hpp"
#include "support/limited_memory.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"
#include "support/toy_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr SelectionConfig kRule{.budget = 48, .sinks = 2, .recent_window = 16};

/// Which call makes the host tier grow.
enum class Grows { in_schedule, in_apply, in_park };

/// The call, and once more if the host tier could not grow.
template <class Call>
void insist(const KVPool& pool, const AllocationCounter& counter, Call&& call) {
  const Seen before(pool);
  try {
    call();
  } catch (const OutOfMemory& error) {
    REQUIRE(error.tier() == counter.failed_tier);
    REQUIRE(error.bytes_asked() == counter.failed_bytes);
    REQUIRE(Seen(pool) == before);
    call();
  }
}

/// A prompt, groups that leave, decode steps, a park and a resume.
ToyTrace run(ToyLoop& loop, Grows grows, const AllocationCounter& counter) {
  const RequestId id = loop.pool.open(256);
  if (grows == Grows::in_schedule) loop.place(id, 1);
  insist(loop.pool, counter, [&] { loop.prefill(id, toy_text(60)); });
  if (grows == Grows::in_park) {
    insist(loop.pool, counter, [&] { loop.pipeline.park(id, loop.stream); });
    loop.pipeline.resume(id, loop.stream);
  }
  const auto move = [&](std::int32_t groups) {
    loop.place(id, groups);
    if (loop.pool.needs()[0].moving_to != groups) loop.place(id, groups);
  };
  if (grows == Grows::in_apply) move(1);
  ToyDecode decode{.id = id};
  return decode.run(loop, unless_slow(40, 2), [&](int n) {
    if (n % 10 == 3) move(n / 10);
    if (n % 15 == 7) loop.pipeline.park(id, loop.stream);
    if (n % 15 == 7) loop.pipeline.resume(id, loop.stream);
  });
}

/// Calls until no allocation of it fails; how many did, of which a slow run tries every 9th.
template <class Call, class Check>
int failures_of_new(Call&& call, Check&& check) {
  for (int n = 0;; n += unless_slow(1, 9)) {
    fail_allocation(n);
    try {
      call();
      fail_allocation(-1);
      return n;
    } catch (const std::bad_alloc&) {
      fail_allocation(-1);
      check();
    }
  }
}

}  // namespace

TEST_CASE("every allocation of a tier may fail") {
  const Grows grows = GENERATE(
      from_range(values({Grows::in_schedule, Grows::in_apply, Grows::in_park}, {Grows::in_apply})));
  CAPTURE(grows);
  const auto worker = make_backend({.two_memories = true});
  ToyTrace undisturbed;
  int failures = 0;
  const index_t stride = unless_slow(1, 9);
  for (index_t n = -1;; n += stride) {
    CAPTURE(n);
    AllocationCounter counter;
    LimitedMemory device(worker->memories().device, Tier::device, counter);
    LimitedMemory host(worker->memories().host, Tier::host, counter);
    if (n >= 0) counter.fail_at = n;
    bool is_built = false;
    try {
      DeferredBackend backend(*worker, {device, host});
      ToyLoop loop(backend, toy_plan(kRule, 64));
      is_built = true;
      const ToyTrace trace = run(loop, grows, counter);
      backend.run_all();
      if (n < 0) undisturbed = trace;
      REQUIRE(trace == undisturbed);
    } catch (const OutOfMemory& error) {
      REQUIRE_FALSE(is_built);
      REQUIRE(error.tier() == counter.failed_tier);
      REQUIRE(error.bytes_asked() == counter.failed_bytes);
    }
    REQUIRE(counter.live == 0);
    if (n >= counter.allocations) break;
    failures += counter.failed_bytes > 0 ? 1 : 0;
  }
  // The model's arrays, the pool's, the head's, the pipeline's, the host tier.
  REQUIRE(failures * stride > 8);
}

TEST_CASE("every object that a constructor makes may be one too many") {
  const auto worker = make_backend({.two_memories = true});
  AllocationCounter counter;
  LimitedMemory device(worker->memories().device, Tier::device, counter);
  LimitedMemory host(worker->memories().host, Tier::host, counter);
  const toy::Model model(*worker, 1);
  PlannerConfig config;
  config.device_bytes = 8 << 20;
  config.host_bytes = 8 << 20;
  config.force_host_tier = true;
  config.selection = {.budget = 64, .sinks = 2, .recent_window = 40};
  config.head = model.head.shape;
  config.max_requests = 4;
  config.max_length = 500;
  const int failures = failures_of_new(
      [&] {
        MemoryPlanner planner(model.shape, config);
        KVPool pool(*worker, model.shape, planner.pool_plan(), {device, host});
        const RetrievalHead head(*worker, pool, model.head, {}, {device, host});
        const PrefetchPipeline pipeline(*worker, pool, {});
      },
      [&] { REQUIRE(counter.live == 0); });
  REQUIRE(failures > 20);
  REQUIRE(counter.live == 0);
}

TEST_CASE("a call that fails for want of an object leaves the pool as it was") {
  const auto backend = make_backend({.two_memories = true});
  RowLoop loop(*backend, pool_shape(), pool_plan());
  const RequestId a = loop.open(120);
  const RequestId b = loop.open(120);
  loop.prefill(a, 30);
  const auto survives = [&](auto&& call) {
    const Seen before(loop.pool);
    return failures_of_new(call, [&] { REQUIRE(Seen(loop.pool) == before); });
  };
  int failures = 0;
  SECTION("the host tier grows in schedule") {
    loop.place(b, 1);
    failures += survives([&] {
      loop.pool.schedule(std::array{loop.item(b, 20, true), loop.item(a, 1)}, loop.stream);
    });
  }
  SECTION("the host tier grows in park") {
    failures += survives([&] { loop.pipeline.park(a, loop.stream); });
    loop.pipeline.resume(a, loop.stream);
  }
  SECTION("the host tier grows in apply") {
    const std::array target = {1, 3};
    failures += survives([&] { loop.pipeline.apply({loop.pool.needs(), target}, loop.stream); });
  }
  REQUIRE(failures > 0);
  REQUIRE(survives([&] { loop.pool.close(loop.pool.open(10), loop.stream); }) == 0);
  for (int n = 0; n < unless_slow(20, 4); ++n) loop.step({loop.item(b, 2), loop.item(a, 1)}, n);
  REQUIRE(loop.wrong_rows == 0);
}
