// SPDX-License-Identifier: Apache-2.0
#include "spectx/prefetch_pipeline.hpp"

#include <array>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/deferred_backend.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {
const int kSteps = unless_slow(60, 8);

/// An offloaded request in a pool of its own.
struct Offloaded {
  explicit Offloaded(Backend& backend, std::int32_t resident_groups = 0,
                     const PoolPlan& plan = pool_plan(), const ModelShape& shape = pool_shape())
      : loop(backend, shape, plan), id(loop.open(plan.max_length)) {
    loop.place(id, resident_groups);
  }
  StepReport step(index_t rows, index_t phase) {
    loop.step({loop.item(id, rows)}, phase);
    loop.pipeline.wait_ready();
    return loop.pipeline.report();
  }

  RowLoop loop;
  RequestId id;
};
}  // namespace

TEST_CASE("calls out of order are refused") {
  const auto backend = make_backend({.two_memories = true});
  Offloaded o(*backend, 1);
  RowLoop& loop = o.loop;
  REQUIRE_THROWS_AS(PrefetchPipeline(*backend, loop.pool, {.copy_blocks = -1}), InvalidArgument);
  loop.prefill(o.id, 50);
  const auto append = [&](TensorView k, TensorView v, index_t layer = 0) {
    loop.pipeline.append(layer, k, v, loop.stream);
  };
  const auto heads = [](index_t rows, index_t count, index_t dim) {
    return split_heads(matrix_view(nullptr, DType::f32, rows, count * dim), count, dim);
  };
  REQUIRE_THROWS_AS(append(heads(1, 2, 4), heads(1, 2, 6)), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pipeline.end_step(loop.stream), InvalidArgument);

  const Batch& batch = loop.pool.schedule(std::array{loop.item(o.id, 1)}, loop.stream);
  Selection narrow = loop.select(batch, 0);
  narrow.max_budget = 23;
  REQUIRE_THROWS_AS(loop.pipeline.begin_step(batch, narrow, loop.stream), InvalidArgument);
  const Selection selection = loop.select(batch, 0);
  loop.pipeline.begin_step(batch, selection, loop.stream);
  REQUIRE_THROWS_AS(loop.pipeline.begin_step(batch, selection, loop.stream), InvalidArgument);
  REQUIRE_THROWS_AS(loop.pipeline.warm(batch, selection, loop.stream), InvalidArgument);
  REQUIRE_THROWS_AS(loop.place(o.id, 0), InvalidArgument);
  REQUIRE_THROWS_AS(append(heads(2, 2, 4), heads(1, 2, 6)), InvalidArgument);
  REQUIRE_THROWS_AS(append(heads(1, 1, 4), heads(1, 2, 6)), InvalidArgument);
  REQUIRE_THROWS_AS(append(heads(1, 2, 6), heads(1, 2, 6)), InvalidArgument);
  REQUIRE_THROWS_AS(append(heads(1, 2, 4), heads(2, 2, 6)), InvalidArgument);
  REQUIRE_THROWS_AS(append(heads(1, 2, 4), heads(1, 2, 4)), InvalidArgument);
  REQUIRE_THROWS_AS(append(heads(1, 2, 4), matrix_view(nullptr, DType::f32, 1, 12)),
                    InvalidArgument);
  TensorView strided = heads(1, 2, 4);
  strided.strides[2] = 2;
  REQUIRE_THROWS_AS(append(strided, heads(1, 2, 6)), InvalidArgument);
  REQUIRE_THROWS_AS(append(heads(1, 2, 4), heads(1, 2, 6), 2), InvalidArgument);  // sliding
  REQUIRE_THROWS_AS(append(heads(1, 2, 4), heads(1, 2, 6), 6), InvalidArgument);
  REQUIRE_THROWS_AS(append(heads(1, 2, 4), heads(1, 2, 6), -1), InvalidArgument);
  REQUIRE_THROWS_AS(append(heads(1, 2, 4), heads(1, 2, 6), 1), InvalidArgument);  // 0 comes first
  loop.pipeline.end_step(loop.stream);
  REQUIRE(loop.pool.length(o.id) == 51);

  const std::array<std::int32_t, 1> too_many = {4}, negative = {-1};
  const auto apply = [&](std::span<const std::int32_t> target) {
    loop.pipeline.apply({loop.pool.needs(), target}, loop.stream);
  };
  REQUIRE_THROWS_AS(apply(too_many), InvalidArgument);
  REQUIRE_THROWS_AS(apply(negative), InvalidArgument);
  REQUIRE_THROWS_AS(apply({}), InvalidArgument);
  REQUIRE(loop.pool.resident_groups(o.id) == 1);
}

TEST_CASE("a step that was warmed fetches nothing") {
  const auto worker = make_backend({.two_memories = true});
  DeferredBackend backend(*worker);
  const std::int32_t resident = GENERATE(0, 1, 2);
  CAPTURE(resident);
  Offloaded o(backend, resident);
  o.loop.waits = false;
  RowLoop& loop = o.loop;
  loop.prefill(o.id, 70);
  REQUIRE(loop.pool.state(o.id) == RequestState::prefill);
  loop.warm({loop.item(o.id, 1)}, 4);
  REQUIRE(loop.pool.state(o.id) == RequestState::warming);
  const RequestId other = loop.open(20);
  loop.step({loop.item(other, 10, true)});  // nobody else waits
  REQUIRE(loop.pool.state(o.id) == RequestState::warming);
  loop.pipeline.wait_ready();
  REQUIRE(loop.pool.state(o.id) == RequestState::ready);
  const StepReport first = o.step(1, 4);
  REQUIRE(first.path == Path::selected_offloaded);
  REQUIRE(first.misses == 0);
  REQUIRE(first.hits == 2 * 23);
  const StepReport next = o.step(1, 5);  // three other rows a head
  REQUIRE(next.misses > 0);
  REQUIRE(next.misses <= 2 * 4);
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("a request that leaves before it was selected from has to be warmed") {
  const auto backend = make_backend({.two_memories = true});
  Offloaded o(*backend, 3);
  RowLoop& loop = o.loop;
  loop.prefill(o.id, 70);
  const bool is_selected = GENERATE(false, true);
  CAPTURE(is_selected);
  if (is_selected) o.step(1, 4);
  loop.place(o.id, 0);
  loop.place(o.id, 0);  // settled
  REQUIRE(loop.pool.resident_groups(o.id) == 0);
  REQUIRE(loop.pool.state(o.id) == (is_selected ? RequestState::ready : RequestState::prefill));
  if (!is_selected) loop.warm({loop.item(o.id, 1)}, 4);
  REQUIRE(loop.pool.state(o.id) == RequestState::ready);
  REQUIRE(o.step(1, 4).misses <= 2);  // the window has moved on
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("a prompt goes on after decoding, and sees the rows that only slots had") {
  const auto backend = make_backend({.two_memories = true});
  const std::int32_t resident = GENERATE(from_range(values<std::int32_t>({0, 1, 2}, {1})));
  const int steps = GENERATE(from_range(values({1, 3, 4, 5, 9}, {5})));  // a write batch is 4
  CAPTURE(resident, steps);
  Offloaded o(*backend, resident);
  o.loop.prefill(o.id, 37);
  for (int turn = 0; turn < 3; ++turn) {
    for (int n = 0; n < steps; ++n) o.step(1, n);
    REQUIRE(o.loop.pool.state(o.id) == RequestState::ready);
    o.loop.step({o.loop.item(o.id, 11, true)});
    REQUIRE(o.loop.pool.state(o.id) == RequestState::prefill);
  }
  o.step(1, 9);
  REQUIRE(o.loop.wrong_rows == 0);
}

TEST_CASE("rows that were evicted come back equal, of every type") {
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16);
  const index_t write_batch = GENERATE(from_range(values<index_t>({1, 3, 7}, {3})));
  const index_t slots = GENERATE(from_range(values<index_t>({24, 32}, {24})));
  CAPTURE(dtype_name(dtype), write_batch, slots);
  const auto backend = make_backend({.threads = 2, .two_memories = true});
  PoolPlan plan = pool_plan(dtype);
  plan.head_kv_heads = 0;
  plan.write_batch = write_batch;
  plan.slots = slots;
  Offloaded o(*backend, 1, plan, pool_shape(dtype));
  o.loop.prefill(o.id, 30);
  index_t misses = 0;
  for (int n = 0; n < kSteps; ++n) {
    const StepReport report = o.step(1, n * n);
    misses += report.misses;
    REQUIRE(report.bytes == report.misses * 3 * 10 * dtype_bytes(dtype));  // three layers
  }
  REQUIRE(misses > kSteps * 2);
  o.loop.step({o.loop.item(o.id, 4, true)});  // every row, from the host tier
  REQUIRE(o.loop.rows_read > kSteps * 24 * 2 * 5);
  REQUIRE(o.loop.wrong_rows == 0);
}

TEST_CASE("drafts are written through, and forgotten when they are taken back") {
  const auto backend = make_backend({.two_memories = true});
  Offloaded o(*backend, GENERATE(0, 2));
  o.loop.prefill(o.id, 30);
  for (int n = 0; n < kSteps; ++n) {
    o.step(1 + n % 4, n);
    if (n % 4 > 0) o.loop.rewind(o.id, o.loop.pool.length(o.id) - n % 4);
    if (n == kSteps / 2) o.loop.rewind(o.id, 26);  // below what is in the host tier
  }
  o.loop.step({o.loop.item(o.id, 4, true)});
  REQUIRE(o.loop.wrong_rows == 0);
}

TEST_CASE("items of every kind share a step") {
  const auto backend = make_backend({.threads = 2, .two_memories = true});
  RowLoop loop(*backend, pool_shape(), pool_plan());
  const std::array ids = {loop.open(110), loop.open(120), loop.open(120)};
  loop.place(ids[1], 2);
  loop.place(ids[2], 0);
  for (const RequestId id : ids) loop.prefill(id, 32);
  for (int n = 0; n < unless_slow(25, 8); ++n) {
    loop.step({loop.item(ids[2], 3, n % 3 == 0), loop.item(ids[0], 2, n % 4 == 0),
               loop.item(ids[1], 1, n % 5 == 0)},
              n);
    if (n % 6 == 5) loop.place(ids[static_cast<std::size_t>(n) % 3], n % 4);
  }
  REQUIRE(loop.wrong_rows == 0);
}
