// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <mutex>

#include "spectx/memory.hpp"

namespace spectx::test {

/// Counts what is allocated through any number of LimitedMemory, and fails one allocation.
struct AllocationCounter {
  index_t allocations = 0;                                // that were asked for
  index_t live = 0;                                       // not yet given back
  index_t fail_at = std::numeric_limits<index_t>::max();  // number of the one that fails
  index_t failed_bytes = 0;                               // what it asked for
  Tier failed_tier = Tier::device;
  std::mutex mutex;  // of all that is counted: a tier may grow in a thread of its own
};

/// Passes on to another resource, on behalf of one tier, as long as its cap and its counter let it.
class LimitedMemory final : public MemoryResource {
 public:
  LimitedMemory(MemoryResource& memory, Tier tier, AllocationCounter& counter,
                index_t cap = std::numeric_limits<index_t>::max())
      : memory_(memory), tier_(tier), counter_(counter), cap_(cap) {}

  void* allocate(index_t bytes, index_t alignment = 256) override {
    const std::lock_guard lock(counter_.mutex);
    const bool fails = counter_.allocations++ == counter_.fail_at;
    if (fails || bytes > cap_ - held_) {
      counter_.failed_bytes = bytes;
      counter_.failed_tier = tier_;
      throw OutOfMemory(tier_, bytes, fails ? 0 : cap_ - held_);
    }
    void* const memory = memory_.allocate(bytes, alignment);
    held_ += bytes;
    ++counter_.live;
    return memory;
  }
  void deallocate(void* memory, index_t bytes) noexcept override {
    const std::lock_guard lock(counter_.mutex);
    memory_.deallocate(memory, bytes);
    held_ -= bytes;
    --counter_.live;
  }

  bool is_slow() const noexcept override { return is_slow_; }

  index_t held_bytes() const {
    const std::lock_guard lock(counter_.mutex);
    return held_;
  }
  void set_slow() noexcept { is_slow_ = true; }
  void set_cap(index_t bytes) noexcept { cap_ = bytes; }

 private:
  MemoryResource& memory_;
  Tier tier_;
  AllocationCounter& counter_;
  index_t cap_;
  index_t held_ = 0;
  bool is_slow_ = false;
};

}  // namespace spectx::test
