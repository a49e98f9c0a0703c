// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "spectx/cpu/slots.hpp"
#include "support/backends.hpp"
#include "support/batches.hpp"
#include "support/limited_memory.hpp"
#include "support/pool_data.hpp"

using namespace spectx;
using namespace spectx::test;

TEST_CASE("update_slots changes nothing if its scratch memory cannot grow") {
  const auto backend = make_oracle();
  PoolData pool(*backend, {.requests = 1});
  pool.upload();
  PoolData before(*backend, {.requests = 1});
  const BatchData batch(*backend, {{.request = {0}, .first = 20, .rows = 1, .selects = true}});
  const DeviceArray<std::int32_t> ids(*backend, {2, 5, 20, 3, 9, 20});
  const DeviceArray<std::int32_t> counts(*backend, {3, 3});
  const DeviceArray<std::int32_t> lists(*backend, std::vector<std::int32_t>(6 * 3 + 2 * 2));
  UpdateSlotsArgs args;
  args.batch = batch.get();
  args.selection = {ids, counts, {}, 3};
  args.pool = pool.view();
  args.lists = {lists.data(),      lists.data() + 6,  lists.data() + 12,
                lists.data() + 18, lists.data() + 20, 3};
  AllocationCounter counter;
  LimitedMemory memory(backend->memories().device, Tier::device, counter);
  cpu::Context context(2, {}, memory);
  for (counter.fail_at = 0; counter.fail_at < 2; ++counter.fail_at) {
    counter.allocations = 0;
    REQUIRE_THROWS_AS(cpu::update_slots(args, context), OutOfMemory);
    pool.download();
    REQUIRE(pool.clock == 0);
    REQUIRE(pool.slot_of_token == before.slot_of_token);
  }
  counter.fail_at = -1;
  cpu::update_slots(args, context);
  pool.download();
  REQUIRE(pool.clock == 1);
  REQUIRE(pool.slot_of_token[2] == 0);
}
