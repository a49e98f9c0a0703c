// SPDX-License-Identifier: Apache-2.0
// Groups that leave for a host tier which is not there yet.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

/// Slow memory: nobody gets a chunk of it until it is opened.
class GatedMemory final : public MemoryResource {
 public:
  explicit GatedMemory(MemoryResource& memory) : memory_(memory) {}
  ~GatedMemory() override { open(); }

  void open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    changed_.notify_all();
  }
  void* allocate(index_t bytes, index_t alignment) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_open_ || bytes < kChunkBytes; });
    return memory_.allocate(bytes, alignment);
  }
  void deallocate(void* memory, index_t bytes) noexcept override {
    memory_.deallocate(memory, bytes);
  }
  bool is_slow() const noexcept override { return true; }

 private:
  static constexpr index_t kChunkBytes = index_t{1} << 20;  // or more

  MemoryResource& memory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_open_ = false;
};

/// A request of 60 tokens, and `free_pages` more; the host tier grows in the background.
PoolPlan growing_plan(index_t free_pages) {
  PoolPlan plan = pool_plan();
  plan.head_kv_heads = 0;
  plan.arena_pages = 3 * 15 + free_pages;
  plan.host_pages = index_t{1} << 21;
  return plan;
}

}  // namespace

TEST_CASE("a batch waits for a host tier that has to grow before a group can leave") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  GatedMemory host(backend->memories().host);
  Memories memories = backend->memories();
  RowLoop loop(*backend, pool_shape(), growing_plan(8), {memories.device, host});
  const RequestId id = loop.open(120);
  loop.prefill(id, 60);
  loop.place(id, 2);
  REQUIRE(loop.pool.needs()[0].moving_to == -1);
  REQUIRE(loop.pool.resident_groups(id) == 3);
  std::thread opener([&] { host.open(); });
  loop.step({loop.item(id, 4)}, 3);  // a page in each group, of the eight that the slots need
  opener.join();
  REQUIRE(loop.pool.stats().stalled_batches == 1);
  REQUIRE(loop.pool.resident_groups(id) == 2);
  for (int n = 0; n < 10; ++n) loop.step({loop.item(id, 1)}, n);
  loop.step({loop.item(id, 2, true)});
  REQUIRE(loop.wrong_rows == 0);
}

TEST_CASE("a prompt's chunk leaves room for a group's slots and for the next chunk") {
  const auto backend = make_backend({.threads = 1, .two_memories = true});
  GatedMemory host(backend->memories().host);
  RowLoop loop(*backend, pool_shape(), growing_plan(15), {backend->memories().device, host});
  const RequestId id = loop.open(120);
  loop.prefill(id, 60);
  loop.place(id, 2);  // cannot leave yet
  loop.step({loop.item(id, 1)});
  REQUIRE(loop.pool.resident_groups(id) == 3);  // a row needs no more than is there
  std::thread opener([&] { host.open(); });
  loop.step({loop.item(id, 4, true)});
  opener.join();
  REQUIRE(loop.pool.stats().stalled_batches == 1);
  REQUIRE(loop.pool.resident_groups(id) == 2);
  loop.step({loop.item(id, 4, true)});
  REQUIRE(loop.wrong_rows == 0);
}
