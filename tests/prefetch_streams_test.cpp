// SPDX-License-Identifier: Apache-2.0
// Streams run when they like: only events order them. The results stay the same to the bit.
#include <map>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/deferred_backend.hpp"
#include "support/toy_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr SelectionConfig kRule{.budget = 48, .sinks = 2, .recent_window = 16};
const int kSteps = unless_slow(100, 5);

struct Result {
  ToyTrace trace;
  std::map<index_t, std::array<index_t, 3>> reports;  // step -> hits, misses, bytes
};

/// Decodes while the request is parked, a second one prefills beside it and, if `has_moves`, groups
/// come and go. `stir` is called at every turn.
template <class Stir>
Result decode(Backend& backend, bool has_moves, Stir&& stir) {
  ToyLoop loop(backend, toy_plan(kRule, 64));
  loop.waits = false;
  ToyDecode main{.id = loop.pool.open(256)};
  loop.place(main.id, 1);
  loop.prefill(main.id, toy_text(70));
  const RequestId other = loop.pool.open(256);
  loop.place(other, 0);
  Result result;
  const auto note = [&] {
    const StepReport& report = loop.pipeline.report();
    if (report.step >= 0) result.reports[report.step] = {report.hits, report.misses, report.bytes};
  };
  result.trace = main.run(loop, kSteps, [&](int n) {
    note();
    stir();
    if (has_moves && n % 6 == 1) loop.place(main.id, n * 7 % (kToyGroups + 1));
    stir();
    if (n % 9 == 4) loop.step({other, toy_text(11), true});
    note();
    stir();
    if (n % 30 == std::min(kSteps / 2, 20)) {
      loop.pipeline.park(main.id, loop.stream);
      stir();
      loop.pipeline.resume(main.id, loop.stream);
      const std::array token = {main.token};
      const Batch& batch = loop.pool.schedule(std::array{BatchItem{main.id, token}}, loop.stream);
      loop.pipeline.warm(batch, loop.head.select(batch, loop.stream), loop.stream);
      stir();
      loop.pipeline.wait_ready();
    }
    stir();
  });
  note();
  loop.pool.close(main.id, loop.stream);
  loop.pipeline.wait_ready();
  backend.synchronize(loop.stream);
  return result;
}

}  // namespace

TEST_CASE("what no event orders may run in any order") {
  const bool has_moves = GENERATE(false, true);
  const unsigned seed = GENERATE(from_range(values<unsigned>({0, 1, 2, 3, 4, 5}, {3})));
  CAPTURE(has_moves, seed);
  if (is_slow_run() && !has_moves) return;
  const auto worker = make_backend({.threads = 1, .two_memories = true});
  const Result at_once = decode(*worker, has_moves, [] {});
  DeferredBackend deferred(*worker, seed);
  std::mt19937 random(seed);
  const Result result = decode(deferred, has_moves, [&] {
    if (seed > 0) deferred.run_some(static_cast<int>(random() % 60));  // 0: as late as it can
  });
  REQUIRE(result.trace == at_once.trace);
  if (has_moves)
    return;  // when a move is done is up to the device, and so is what has to be fetched
  REQUIRE(at_once.reports.size() >= 100);
  REQUIRE(result.reports.size() > 50);
  for (const auto& [step, figures] : result.reports) {
    CAPTURE(step);
    const auto expected = at_once.reports.find(step);
    if (expected != at_once.reports.end()) REQUIRE(figures == expected->second);
  }
}
