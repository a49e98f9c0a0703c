// SPDX-License-Identifier: Apache-2.0
// A warm step allocates nothing: neither objects nor bytes of a MemoryResource.
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/counted_new.hpp"
#include "support/limited_memory.hpp"
#include "support/toy_loop.hpp"

using namespace spectx;
using namespace spectx::test;

TEST_CASE("6: a warm step allocates nothing") {
  const bool has_host_tier = GENERATE(false, true);
  const int threads = GENERATE(1, 3);
  const bool has_guard = GENERATE(false, true);
  CAPTURE(has_host_tier, threads, has_guard);
  const auto backend = make_backend({.threads = threads, .two_memories = has_host_tier});
  AllocationCounter counter;
  LimitedMemory device(backend->memories().device, Tier::device, counter);
  LimitedMemory host(backend->memories().host, Tier::host, counter);
  SelectionConfig rule{.budget = 48, .sinks = 2, .recent_window = 16};
  if (has_guard) rule.max_budget = 64;
  if (has_guard) rule.min_coverage = 0.6F;
  ToyLoop loop(*backend, toy_plan(rule, has_host_tier ? 64 : 0), {device, host});
  const std::array<std::int32_t, 1> token = {7};
  const std::array<std::int32_t, 3> drafts = {7, 8, 9};
  const std::array ids = {loop.pool.open(256), loop.pool.open(256), loop.pool.open(256)};
  if (has_host_tier) loop.place(ids[0], 0);
  for (const RequestId id : ids) loop.prefill(id, toy_text(80));
  if (has_host_tier) loop.place(ids[1], 2);

  std::array<std::int32_t, 3> target{};
  const auto step = [&](int n) {
    if (has_host_tier && n % 10 == 5) {  // the third request comes and goes
      for (std::size_t i = 0; i < 3; ++i) target[i] = loop.pool.needs()[i].resident_groups;
      target[2] = (n / 10) % 2 == 0 ? 1 : 4;
      loop.pipeline.apply({loop.pool.needs(), target}, loop.stream);
    }
    loop.step(std::array{BatchItem{ids[0], token}, BatchItem{ids[1], drafts},
                         BatchItem{ids[2], token, n % 4 == 3}});
    loop.pool.rewind(ids[1], loop.pool.length(ids[1]) - 2, loop.stream);
    if (loop.pipeline.report().step < 0) throw Error("no step was reported");
  };
  for (int n = 0; n < 30; ++n) step(n);  // warm: every kind of step was there
  const long before = num_allocations();
  const index_t bytes_before = counter.allocations;
  for (int n = 30; n < 80; ++n) step(n);
  REQUIRE(num_allocations() == before);
  REQUIRE(counter.allocations == bytes_before);
  REQUIRE(before > 0);
}
