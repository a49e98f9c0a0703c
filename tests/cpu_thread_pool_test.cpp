// SPDX-License-Identifier: Apache-2.0
#include "spectx/cpu/thread_pool.hpp"

#include <numeric>
#include <stdexcept>

#include "catch.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/memory.hpp"

using namespace spectx;

namespace {

/// Counts how often each task ran, and on how many threads.
struct Counts {
  explicit Counts(index_t tasks) : runs(static_cast<std::size_t>(tasks)) {}

  static void count(void* context, index_t task, int thread) {
    Counts& self = *static_cast<Counts*>(context);
    ++self.runs[static_cast<std::size_t>(task)];
    self.threads.fetch_or(1U << thread);
  }

  std::vector<int> runs;  // not atomic: a task runs on one thread, and the caller reads after all
  std::atomic<unsigned> threads = 0;
};

}  // namespace

TEST_CASE("ThreadPool runs every task once and returns when all are done") {
  const int threads = GENERATE(1, 2, 3, 5);
  CAPTURE(threads);
  cpu::ThreadPool pool(threads);
  REQUIRE(pool.threads() == threads);
  for (int loop = 0; loop < 2000; ++loop) {
    const index_t tasks = loop % 7;
    Counts counts(tasks);
    pool.run(tasks, &counts, Counts::count);
    for (const int runs : counts.runs) REQUIRE(runs == 1);
    REQUIRE(counts.threads.load() < (1U << threads));
  }
}

TEST_CASE("ThreadPool: a task may wait for another, so tasks run at the same time") {
  cpu::ThreadPool pool(2);
  std::atomic<int> arrived = 0;
  for (int loop = 0; loop < 50; ++loop) {
    arrived = 0;
    pool.run(2, &arrived, [](void* context, index_t, int) {
      auto& count = *static_cast<std::atomic<int>*>(context);
      ++count;
      while (count != 2) cpu::relax();
    });
    REQUIRE(arrived == 2);
  }
}

TEST_CASE("ThreadPool wakes its threads after they slept") {
  cpu::ThreadPool pool(3);
  for (int loop = 0; loop < 5; ++loop) {
    // The pool has nothing to signal that a thread sleeps; idle for many times the spinning.
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
    while (std::chrono::steady_clock::now() < end) std::this_thread::yield();
    Counts counts(30);
    pool.run(30, &counts, Counts::count);
    REQUIRE(std::accumulate(counts.runs.begin(), counts.runs.end(), 0) == 30);
  }
}

TEST_CASE("Context: what a task throws is thrown by the loop, and the next loop works") {
  cpu::HeapMemory memory(Tier::device);
  const int threads = GENERATE(1, 3);
  cpu::Context context(threads, {}, memory);
  CAPTURE(threads);
  REQUIRE_THROWS_AS(context.for_each(20,
                                     [](index_t task, int) {
                                       if (task == 13) throw std::domain_error("13");
                                     }),
                    std::domain_error);
  std::atomic<index_t> sum = 0;
  context.for_each(20, [&](index_t task, int) { sum += task; });
  REQUIRE(sum == 190);
}

TEST_CASE("Context cuts a count into ranges that cover it once") {
  cpu::HeapMemory memory(Tier::device);
  cpu::Context context(3, {}, memory);
  const index_t count = GENERATE(0, 1, 2, 1000, 100'003);
  const index_t unit_bytes = GENERATE(0, 1, 100, 1 << 20);
  CAPTURE(count, unit_bytes);
  std::vector<int> runs(static_cast<std::size_t>(count));
  context.for_ranges(count, unit_bytes, [&](index_t begin, index_t end, int) {
    for (index_t i = begin; i < end; ++i) ++runs[static_cast<std::size_t>(i)];
  });
  REQUIRE(std::count(runs.begin(), runs.end(), 1) == count);
}
