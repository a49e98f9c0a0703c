// SPDX-License-Identifier: Apache-2.0
// What must always hold in a step, one test case a rule.
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/toy_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr SelectionConfig kWhole{.budget = 248, .sinks = 2, .recent_window = 16};
constexpr SelectionConfig kSparse{.budget = 48, .sinks = 2, .recent_window = 16};
constexpr int kPrompt = 75;
const int kSteps = unless_slow(112, 3);
constexpr int kNeverMoves = 1 << 20;

struct Run {
  int threads = 1;
  index_t slots = 0;  // 0: one memory
  std::int32_t resident_groups = kToyGroups;
  int move_every = kNeverMoves;  // steps
  bool is_dense = false;
  int neighbours = 0;
  DType host_dtype = DType::f32;
};

/// A prompt and kSteps decode steps, in a pool and on a backend of their own.
ToyTrace trace_of(const SelectionConfig& rule, const Run& run) {
  const auto backend = make_backend({.threads = run.threads, .two_memories = run.slots > 0});
  PoolPlan plan = toy_plan(rule, run.slots);
  plan.host_dtype = run.host_dtype;
  ToyLoop loop(*backend, plan);
  ToyDecode decode;
  const std::array<std::int32_t, 1> token = {9};
  for (int n = 0; n < run.neighbours; ++n) {
    const RequestId id = loop.pool.open(100);
    loop.prefill(id, toy_text(60 + 7 * n, n));
    decode.neighbours.push_back({id, token, n == 1});
  }
  decode.id = loop.pool.open(256);
  decode.is_dense = run.is_dense;
  if (run.resident_groups < kToyGroups) loop.place(decode.id, run.resident_groups);
  loop.prefill(decode.id, toy_text(kPrompt));
  return decode.run(loop, kSteps, [&](int n) {
    if (n % run.move_every != run.move_every - 1) return;
    loop.place(decode.id, n / run.move_every * 3 % static_cast<int>(kToyGroups + 1));
  });
}

/// Which part of two traces differs; empty: none.
std::string difference(const ToyTrace& a, const ToyTrace& b) {
  if (a.ids != b.ids) return "selected ids";
  if (a.bits != b.bits) return "hidden states";
  if (a.tokens != b.tokens) return "tokens";
  return "";
}

}  // namespace

TEST_CASE("1: with a budget of the whole length a step gives the bits of the dense step") {
  if (is_slow_run()) return;  // no kernel that the others leave out
  const ToyTrace dense = trace_of(kWhole, {.is_dense = true});
  const auto same = [&](const Run& run) {
    const ToyTrace trace = trace_of(kWhole, run);
    return trace.bits == dense.bits && trace.tokens == dense.tokens;
  };
  REQUIRE(dense.tokens.size() == static_cast<std::size_t>(kSteps));
  REQUIRE(same({}));
  for (std::int32_t resident = 0; resident <= kToyGroups; ++resident) {
    CAPTURE(resident);
    REQUIRE(same({.slots = 248, .resident_groups = resident}));
  }
  REQUIRE(same({.slots = 248, .move_every = 5}));
  REQUIRE(same({.slots = 248, .resident_groups = 1, .is_dense = true}));
}

TEST_CASE("1: neither slots, placement, neighbours nor threads change a bit") {
  const ToyTrace alone = trace_of(kSparse, {});
  if (is_slow_run()) {
    const Run run{.slots = 64, .resident_groups = 2, .move_every = 1, .neighbours = 1};
    REQUIRE(difference(trace_of(kSparse, run), alone) == "");
    return;
  }
  SECTION("slots") {
    for (const index_t slots : {48, 96, 192}) {
      CAPTURE(slots);
      REQUIRE(difference(trace_of(kSparse, {.slots = slots, .resident_groups = 0}), alone) == "");
    }
  }
  SECTION("placement") {
    for (std::int32_t resident = 0; resident <= kToyGroups; ++resident) {
      CAPTURE(resident);
      const Run run{.slots = 96, .resident_groups = resident};
      REQUIRE(difference(trace_of(kSparse, run), alone) == "");
    }
  }
  SECTION("placement that changes as the request decodes") {
    const int every = GENERATE(1, 3, 10);
    CAPTURE(every);
    const Run run{.slots = 64, .resident_groups = 2, .move_every = every};
    REQUIRE(difference(trace_of(kSparse, run), alone) == "");
  }
  SECTION("neighbours") {
    const int neighbours = GENERATE(1, 2, 3);
    CAPTURE(neighbours);
    REQUIRE(difference(trace_of(kSparse, {.neighbours = neighbours}), alone) == "");
    const Run offloaded{.slots = 64, .resident_groups = 1, .neighbours = neighbours};
    REQUIRE(difference(trace_of(kSparse, offloaded), alone) == "");
  }
  SECTION("threads") {
    const int threads = GENERATE(2, 3);
    CAPTURE(threads);
    REQUIRE(difference(trace_of(kSparse, {.threads = threads}), alone) == "");
    const Run offloaded{.threads = threads, .slots = 64, .resident_groups = 1};
    REQUIRE(difference(trace_of(kSparse, offloaded), alone) == "");
  }
}

TEST_CASE("1: with a lossy host tier, the same placement and evictions give the same bits") {
  const DType host_dtype = GENERATE(DType::f8_e4m3, DType::i8);
  CAPTURE(dtype_name(host_dtype));
  if (is_slow_run()) return;
  const auto run = [&](int threads, int neighbours) {
    return trace_of(kSparse, {.threads = threads,
                              .slots = 64,
                              .resident_groups = 1,
                              .move_every = 10,
                              .neighbours = neighbours,
                              .host_dtype = host_dtype});
  };
  const ToyTrace alone = run(1, 0);
  REQUIRE(difference(run(3, 0), alone) == "");
  REQUIRE(difference(run(1, 2), alone) == "");
  REQUIRE(difference(trace_of(kSparse, {.host_dtype = host_dtype}), trace_of(kSparse, {})) == "");
  REQUIRE(difference(alone, trace_of(kSparse, {})) != "");
}

TEST_CASE("3: the selection is the same with one memory and with two") {
  if (is_slow_run()) return;  // it was compared above
  const ToyTrace one = trace_of(kSparse, {});
  const ToyTrace two = trace_of(kSparse, {.slots = 96, .resident_groups = 0});
  REQUIRE(one.ids.size() == static_cast<std::size_t>(2 * kSteps));
  REQUIRE(one.ids == two.ids);
  for (const auto& ids : one.ids) REQUIRE(ids.size() == static_cast<std::size_t>(kSparse.budget));
}

TEST_CASE("7: the report says how a step read its rows, and counts them") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  ToyLoop loop(*backend, toy_plan(kSparse, 96));
  const RequestId resident = loop.pool.open(256);
  const RequestId offloaded = loop.pool.open(256);
  const std::array<std::int32_t, 1> token = {5};
  loop.prefill(resident, toy_text(90));
  loop.place(offloaded, 1);
  loop.prefill(offloaded, toy_text(120, 5));
  REQUIRE(loop.pipeline.report().path == Path::dense);
  REQUIRE(loop.pipeline.report().hits + loop.pipeline.report().misses == 0);
  const index_t before = loop.pipeline.report().step;

  loop.step({resident, token});
  REQUIRE(loop.pipeline.report().path == Path::selected_resident);
  REQUIRE(loop.pipeline.report().hits + loop.pipeline.report().misses == 0);
  REQUIRE(loop.pipeline.report().bytes == 0);

  // Rows that come from slots or from the host: all that are selected but the step's own.
  const KVPoolView view = loop.pool.view();
  const index_t heads = loop.model.shape.kv_heads;
  const index_t offloaded_layers = loop.model.shape.layers - view.layers_of(0);
  const auto check = [&](Path path, index_t expected_rows, index_t least_misses) {
    const StepReport& report = loop.pipeline.report();
    REQUIRE(path_name(report.path) == std::string(path_name(path)));
    REQUIRE(report.hits + report.misses == expected_rows);
    REQUIRE(report.misses >= least_misses);
    REQUIRE(report.bytes == report.misses * offloaded_layers * view.row_bytes);
    REQUIRE_FALSE(report.is_lossy);
  };
  loop.step({offloaded, token});
  check(Path::selected_offloaded, heads * (kSparse.budget - 1), heads * (kSparse.budget - 1));
  loop.step({offloaded, token});
  check(Path::selected_offloaded, heads * (kSparse.budget - 1), 0);
  const std::array<std::int32_t, 3> drafts = {1, 2, 3};
  loop.step({offloaded, drafts});
  check(Path::selected_offloaded, heads * (kSparse.budget - 3), 0);
  loop.step(std::array{BatchItem{resident, token}, BatchItem{offloaded, token}});
  check(Path::mixed, heads * (kSparse.budget - 1), 0);
  loop.step(std::array{BatchItem{offloaded, token}, BatchItem{resident, token, true}});
  check(Path::mixed, heads * (kSparse.budget - 1), 0);
  loop.step(std::array{BatchItem{resident, token, true}, BatchItem{offloaded, token, true}});
  check(Path::dense, 0, 0);
  REQUIRE(loop.pipeline.report().step == before + 7);
}
