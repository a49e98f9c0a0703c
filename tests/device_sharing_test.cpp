// SPDX-License-Identifier: Apache-2.0
// Pools that share a device, backends on threads of their own, and steps on several streams: the
// bits of one alone.
#include <future>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/toy_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr SelectionConfig kRule{.budget = 48, .sinks = 2, .recent_window = 16};
const int kSteps = unless_slow(60, 3);

/// A loop with a request that decodes, partly off the device.
struct Decoding {
  Decoding(Backend& backend, const SelectionConfig& rule, int seed)
      : loop(backend, toy_plan(rule, 64)) {
    loop.waits = false;
    main.id = loop.pool.open(256);
    loop.place(main.id, seed % kToyGroups);
    loop.prefill(main.id, toy_text(90, seed));
  }
  template <class Before>
  ToyTrace run(Before&& before) {
    return main.run(loop, kSteps, [&](int n) {
      if (n % 11 == 5) loop.place(main.id, n % (kToyGroups + 1));
      if (n % 25 == 12) loop.pipeline.park(main.id, loop.stream);
      if (n % 25 == 12) loop.pipeline.resume(main.id, loop.stream);
      before(n);
    });
  }
  ToyTrace run() {
    return run([](int) {});
  }

  ToyLoop loop;
  ToyDecode main;
};

}  // namespace

TEST_CASE("two pools on one device do not disturb each other") {
  const auto backend = make_backend({.two_memories = true});
  const SelectionConfig wider{.budget = 64, .sinks = 1, .recent_window = 24};
  const ToyTrace first_alone = Decoding(*backend, kRule, 3).run();
  Decoding first(*backend, kRule, 3);
  Decoding second(*backend, wider, 5);
  const RequestId other = second.loop.pool.open(256);
  second.loop.place(other, 0);
  const ToyTrace trace = first.run([&](int n) {
    // Put on the second pool's streams and not waited for.
    const std::vector<std::int32_t> tokens = toy_text(n % 7 == 0 ? 5 : 1, n + 1);
    const BatchItem item{other, tokens, n % 7 == 0};
    if (second.loop.pool.length(other) + 8 > 256)
      second.loop.pool.rewind(other, 20, second.loop.stream);
    second.loop.enqueue(second.loop.pool.schedule(std::span(&item, 1), second.loop.stream));
  });
  REQUIRE(trace == first_alone);
  if (is_slow_run()) return;
  REQUIRE(second.run() == Decoding(*backend, wider, 5).run());
}

TEST_CASE("backends on threads of their own do not disturb each other") {
  const auto run = [](int seed) {
    const auto backend = make_backend({.threads = 2, .two_memories = true});
    return Decoding(*backend, kRule, seed).run();
  };
  const ToyTrace first = run(3);
  const ToyTrace second = run(5);
  std::future<ToyTrace> beside = std::async(std::launch::async, run, 3);
  const ToyTrace here = run(5);
  REQUIRE(beside.get() == first);
  REQUIRE(here == second);
}

TEST_CASE("steps may go from stream to stream where events order them") {
  const auto backend = make_backend({.two_memories = true});
  const ToyTrace on_one = Decoding(*backend, kRule, 2).run();
  Decoding decoding(*backend, kRule, 2);
  const std::array<Stream, 3> streams = {backend->make_stream(), backend->make_stream(),
                                         backend->make_stream()};
  const Event handed_on = backend->make_event();
  const ToyTrace on_many = decoding.run([&](int n) {
    backend->record(handed_on, decoding.loop.stream);
    decoding.loop.stream = streams[static_cast<std::size_t>(n % 3)];
    backend->wait(decoding.loop.stream, handed_on);
  });
  REQUIRE(on_many == on_one);
  REQUIRE(decoding.loop.pipeline.report().step > kSteps);
  backend->synchronize(decoding.loop.stream);
  decoding.loop.pipeline.wait_ready();
  decoding.loop.stream = decoding.loop.own_stream;
}
