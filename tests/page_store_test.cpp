// SPDX-License-Identifier: Apache-2.0
// A tier whose memory is slow grows ahead of need, on a thread of its own.
#include "spectx/detail/page_store.hpp"

#include <condition_variable>

#include "bench/recycled_memory.hpp"
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/limited_memory.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"

using namespace spectx;
using namespace spectx::test;
using detail::PageStore;

namespace {

constexpr index_t kPage = index_t{16} << 20;
constexpr index_t kChunk = 4;  // pages
constexpr index_t kMost = 18;  // pages: five chunks, the last of two

/// Hands out what the test allows, and fails where it says.
class SlowMemory final : public MemoryResource {
 public:
  explicit SlowMemory(MemoryResource& memory) : memory_(memory) {}

  void* allocate(index_t bytes, index_t alignment) override {
    std::unique_lock lock(mutex_);
    ++asked_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return allowed_ > 0; });
    --allowed_;
    thread_ = std::this_thread::get_id();
    if (fails_) throw OutOfMemory(Tier::host, bytes, 1);
    ++live_;
    return memory_.allocate(bytes, alignment);
  }
  void deallocate(void* memory, index_t bytes) noexcept override {
    memory_.deallocate(memory, bytes);
    const std::lock_guard lock(mutex_);
    --live_;
  }
  bool is_slow() const noexcept override { return true; }

  void allow(int chunks, bool fails = false) {
    const std::lock_guard lock(mutex_);
    allowed_ += chunks;
    fails_ = fails;
    changed_.notify_all();
  }
  /// Until `allocate` has been called so often.
  void wait_asked(int times) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return asked_ >= times; });
  }
  int live() {
    const std::lock_guard lock(mutex_);
    return live_;
  }
  std::thread::id thread() {
    const std::lock_guard lock(mutex_);
    return thread_;
  }

 private:
  MemoryResource& memory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int asked_ = 0, allowed_ = 0, live_ = 0;
  bool fails_ = false;
  std::thread::id thread_;
};

}  // namespace

TEST_CASE("chunks come before they are needed, on another thread") {
  const auto backend = make_backend({.two_memories = true});
  SlowMemory memory(backend->memories().host);
  {
    PageStore store(memory, Tier::host, kPage, kMost, kChunk);
    memory.wait_asked(1);  // nobody has reserved a page yet
    REQUIRE(store.allocated_bytes() == 0);
    REQUIRE_FALSE(store.try_reserve(1));
    memory.allow(2);
    memory.wait_asked(3);  // so two are there
    REQUIRE(store.allocated_bytes() == 2 * kChunk * kPage);
    REQUIRE(memory.thread() != std::this_thread::get_id());
    REQUIRE(store.try_reserve(5));
    REQUIRE(store.waits() == 0);
    REQUIRE(store.free_pages() == 2 * kChunk);
    REQUIRE_FALSE(store.try_reserve(9));
    memory.allow(1);
    store.reserve(9);  // waits for it
    REQUIRE(store.waits() <= 1);
    REQUIRE(store.free_pages() == 3 * kChunk);
    std::byte* const page = store.take();
    REQUIRE(store.used_bytes() == kPage);
    store.give(page);
    memory.allow(2);
    store.reserve(kMost);
    REQUIRE(store.allocated_bytes() == kMost * kPage);
    store.take();
    REQUIRE_THROWS_WITH(store.reserve(kMost),
                        "out of host memory: 301989888 bytes asked, 285212672 bytes free; host "
                        "tier: 16777216 of 301989888 bytes in use");
    REQUIRE_FALSE(store.try_reserve(kMost));
  }
  REQUIRE(memory.live() == 0);
}

TEST_CASE("a chunk that cannot be taken is told to who needs it, and tried again then") {
  const auto backend = make_backend({.two_memories = true});
  SlowMemory memory(backend->memories().host);
  {
    PageStore store(memory, Tier::host, kPage, kMost, kChunk);
    memory.allow(1);
    memory.wait_asked(2);
    memory.allow(1, /*fails=*/true);
    store.reserve(kChunk);
    const auto fails = [&] {
      try {
        store.reserve(kChunk + 1);
      } catch (const OutOfMemory& error) {
        return error.bytes_asked() == kChunk * kPage && error.bytes_free() == 1;
      }
      return false;
    };
    memory.allow(1, true);  // the first try may be the one that failed ahead of need
    REQUIRE(fails());
    REQUIRE(store.free_pages() == kChunk);
    memory.allow(4);
    while (store.free_pages() < 2 * kChunk) {
      if (!store.wait_reserve(kChunk + 1)) REQUIRE(store.free_pages() == kChunk);
    }
    REQUIRE(store.free_pages() >= 2 * kChunk);
    memory.allow(4);
  }
  REQUIRE(memory.live() == 0);
}

TEST_CASE("little memory, or a fast one, is taken when it is needed") {
  const auto backend = make_backend({.two_memories = true});
  AllocationCounter counter;
  LimitedMemory memory(backend->memories().host, Tier::host, counter);
  PageStore fast(memory, Tier::host, kPage, kMost, kChunk);
  REQUIRE(fast.try_reserve(1));
  REQUIRE(counter.allocations == 1);
  memory.set_slow();
  PageStore little(memory, Tier::host, 64, kMost, kChunk);
  REQUIRE(little.try_reserve(1));
  REQUIRE(counter.allocations == 2);
}

TEST_CASE("a pool works on a host tier that grows in the background") {
  const auto backend = make_backend({.two_memories = true});
  AllocationCounter counter;
  LimitedMemory host(backend->memories().host, Tier::host, counter);
  host.set_slow();
  ModelShape shape = pool_shape();
  shape.layers = 2;
  shape.attention = {};
  shape.kv_heads = 1;
  shape.k_dim = shape.v_dim = 512;
  PoolPlan plan = pool_plan();
  plan.page_rows = 64;
  plan.slots = 64;
  plan.max_length = 64 * 16;
  plan.max_step_rows = 64;
  plan.staging_pages = 16;
  plan.arena_pages = 60;
  plan.host_pages = 1024;  // 512 MiB
  {
    RowLoop loop(*backend, shape, plan, {backend->memories().device, host});
    const RequestId id = loop.open(plan.max_length);
    loop.prefill(id, 200);
    for (int n = 0; loop.pool.resident_groups(id) > 0 && n < 1'000'000; ++n) loop.place(id, 0);
    REQUIRE(loop.pool.resident_groups(id) == 0);
    for (int n = 0; n < 6; ++n) loop.step({loop.item(id, 1)}, n);
    loop.pipeline.park(id, loop.stream);
    loop.pipeline.resume(id, loop.stream);
    loop.step({loop.item(id, 1)});
    REQUIRE(loop.wrong_rows == 0);
    REQUIRE(loop.pool.stats().host_total >= index_t{64} << 20);
    REQUIRE(loop.pool.stats().host_total <= plan.host_pages * loop.pool.layout().host_page_bytes);
  }
  REQUIRE(counter.live == 0);
}

TEST_CASE("a memory that keeps blocks for the next who asks says that it is slow") {
  const auto backend = make_backend({.two_memories = true});
  SlowMemory slow(backend->memories().host);
  REQUIRE(bench::RecycledMemory(slow, kPage).is_slow());
}
