// SPDX-License-Identifier: Apache-2.0
// Whatever is asked of a pool and its pipeline, every device ends up with the tables, the figures
// and the rows of the CPU.
#include <random>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/deferred_backend.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

using Ints = std::vector<std::int32_t>;

/// The slot map and what decides the next victims.
struct Tables {
  explicit Tables(RowLoop& loop) {
    const KVPoolView& v = loop.pool.view();
    const index_t heads = loop.pool.plan().max_requests * v.kv_heads;
    const auto ask = [&](Ints& to, const std::int32_t* from, index_t count) {
      return [&to, count, values = loop.reader.ask(from, count, loop.stream)] {
        to.assign(values, values + count);
      };
    };
    const auto take_slots = ask(slot_of_token, v.slot_of_token, heads * v.max_length);
    const auto take_tokens = ask(token_of_slot, v.token_of_slot, heads * v.slots);
    const auto take_used = ask(last_used, v.last_used, heads * v.slots);
    const auto take_durable = ask(durable, v.durable, loop.pool.plan().max_requests);
    loop.reader.wait(loop.stream);
    take_slots();
    take_tokens();
    take_used();
    take_durable();
    // A free slot was last used at any time.
    for (std::size_t i = 0; i < last_used.size(); ++i) {
      if (token_of_slot[i] < 0) last_used[i] = 0;
    }
  }
  friend bool operator==(const Tables&, const Tables&) = default;
  Ints slot_of_token, token_of_slot, last_used, durable;
};

/// One drawing of operations, the same for every loop that it drives.
class Script {
 public:
  explicit Script(unsigned seed) : random_(seed) {}

  /// The next operation, on all loops.
  void operate(std::initializer_list<RowLoop*> loops) {
    const int what = number(0, 19);
    const RequestId id = {number(0, 2)};
    const auto all = [&](auto&& call) {
      for (RowLoop* loop : loops) call(*loop);
    };
    Live& live = live_[static_cast<std::size_t>(id.value)];
    if (!live.is_open) {
      open(loops);
    } else if (live.is_parked) {
      all([&](RowLoop& loop) { loop.pipeline.resume(id, loop.stream); });
      live.is_parked = false;
    } else if (live.length == 0 || (what == 0 && live.length < 90)) {
      const index_t rows = number(1, 30);
      all([&](RowLoop& loop) { loop.step({loop.item(id, rows, true)}); });
      live.length += rows;
    } else if (what < 4) {
      const std::int32_t groups = number(0, 3);
      for (int settled = 0; settled < 2; ++settled) {
        all([&](RowLoop& loop) { loop.place(id, groups); });
      }
    } else if (what == 4) {
      all([&](RowLoop& loop) { loop.pipeline.park(id, loop.stream); });
      live.is_parked = true;
    } else if (what == 5) {
      live.length = std::max<index_t>(live.length - number(0, 9), 0);
      all([&](RowLoop& loop) { loop.rewind(id, live.length); });
    } else if (what == 6 && live.length < 120) {
      const index_t phase = number(0, 40);
      all([&](RowLoop& loop) { loop.warm({loop.item(id, 1)}, phase); });
    } else if (what == 7 && live.length > 100) {
      all([&](RowLoop& loop) { loop.pool.close(id, loop.stream); });
      live = {};
    } else {
      step(loops);
    }
  }
  int steps() const { return steps_; }

 private:
  struct Live {
    bool is_open = false, is_parked = false;
    index_t length = 0;
  };

  int number(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  void open(std::initializer_list<RowLoop*> loops) {
    std::int32_t first = 0;  // that is free
    while (live_[static_cast<std::size_t>(first)].is_open) ++first;
    for (RowLoop* loop : loops) REQUIRE(loop->open(120).value == first);
    live_[static_cast<std::size_t>(first)] = {.is_open = true};
  }
  /// One row, or drafts, of all that can decode.
  void step(std::initializer_list<RowLoop*> loops) {
    std::vector<std::pair<RequestId, index_t>> rows;
    for (std::int32_t r = 0; r < 3; ++r) {
      Live& live = live_[static_cast<std::size_t>(r)];
      const index_t count = number(0, 4) == 0 ? 3 : 1;
      if (live.length == 0 || live.is_parked || live.length + count > 120) continue;
      rows.emplace_back(RequestId{r}, count);
      live.length += count;
    }
    if (rows.empty()) return;
    ++steps_;
    const index_t phase = steps_;
    for (RowLoop* loop : loops) {
      std::vector<BatchItem> items;
      for (const auto& [id, count] : rows) items.push_back(loop->item(id, count));
      loop->step(items, phase);
    }
  }

  std::mt19937 random_;
  std::array<Live, 3> live_;
  int steps_ = 0;
};

void compare(RowLoop& expected, RowLoop& got) {
  for (RowLoop* loop : {&expected, &got}) {
    loop->backend.synchronize(loop->stream);
    loop->pipeline.wait_ready();
  }
  REQUIRE(Seen(got.pool) == Seen(expected.pool));
  REQUIRE(Tables(got) == Tables(expected));
  const StepReport& a = expected.pipeline.report();
  const StepReport& b = got.pipeline.report();
  REQUIRE(b.step == a.step);
  REQUIRE(b.path == a.path);
  REQUIRE(b.is_lossy == a.is_lossy);
  REQUIRE(b.hits == a.hits);
  REQUIRE(b.misses == a.misses);
  REQUIRE(b.bytes == a.bytes);
  REQUIRE(got.lossy_rows == expected.lossy_rows);
  REQUIRE(got.rows_read == expected.rows_read);
  REQUIRE(got.wrong_rows == 0);
}

}  // namespace

TEST_CASE("a device has the tables, figures and rows of the CPU after any operation") {
  const auto [name, worker] = GENERATE(from_range(backends()));
  const unsigned seed = GENERATE(1U, 2U, 3U);
  const DType host = seed < 3 ? DType::f32 : DType::f8_e4m3;
  CAPTURE(name, seed);
  if (worker->has_one_memory() || (is_slow_run() && seed == 2)) return;
  const int operations = unless_slow(160, 40);
  const auto oracle = make_oracle();
  // Where streams run at the call they would run as the oracle does.
  DeferredBackend deferred(*worker, seed);
  Backend& device = worker->runs_at_call() ? static_cast<Backend&>(deferred) : *worker;
  RowLoop expected(*oracle, pool_shape(), pool_plan(host));
  RowLoop got(device, pool_shape(), pool_plan(host));
  Script script(seed);
  for (int n = 0; n < operations; ++n) {
    CAPTURE(n);
    script.operate({&expected, &got});
    compare(expected, got);
  }
  REQUIRE(script.steps() > operations / 4);
  REQUIRE(expected.wrong_rows == 0);
}
