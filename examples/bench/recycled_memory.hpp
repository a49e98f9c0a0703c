// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <mutex>

#include "spectx/memory.hpp"

namespace spectx::bench {

/// Keeps what is given back for the next who asks for as much or a little less: pinning 100 GB
/// takes a minute, and a program runs many configurations. Gives it up where more than `limit`
/// would be held, or nothing else is left. Thread-safe.
class RecycledMemory final : public MemoryResource {
 public:
  RecycledMemory(MemoryResource& memory, index_t limit) noexcept : memory_(memory), limit_(limit) {}
  RecycledMemory(RecycledMemory&&) = delete;
  ~RecycledMemory() override { give_up(); }

  void* allocate(index_t bytes, index_t alignment = 256) override {
    const std::lock_guard lock(mutex_);
    const auto found = free_.lower_bound(bytes);
    if (found != free_.end() && found->first <= bytes + bytes / kMostWaste) {
      void* const memory = found->second;
      taken_.emplace(memory, found->first);
      free_.erase(found);
      return memory;
    }
    if (held_ + bytes > limit_) give_up();
    try {
      return take(bytes, alignment);
    } catch (const OutOfMemory&) {
      if (free_.empty()) throw;
    }
    give_up();
    return take(bytes, alignment);
  }
  void deallocate(void* memory, index_t bytes) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const auto larger = taken_.find(memory); larger != taken_.end()) {
      bytes = larger->second;
      taken_.erase(larger);
    }
    try {
      free_.emplace(bytes, memory);
    } catch (const std::bad_alloc&) {
      give(memory, bytes);
    }
  }
  bool is_slow() const noexcept override { return memory_.is_slow(); }

 private:
  static constexpr index_t kMostWaste = 16;  // a part of what is asked

  void* take(index_t bytes, index_t alignment) {
    void* const memory = memory_.allocate(bytes, alignment);
    held_ += bytes;
    return memory;
  }
  void give(void* memory, index_t bytes) noexcept {
    memory_.deallocate(memory, bytes);
    held_ -= bytes;
  }
  void give_up() noexcept {
    for (const auto& [bytes, memory] : free_) give(memory, bytes);
    free_.clear();
  }

  std::mutex mutex_;  // a tier may grow in a thread of its own
  MemoryResource& memory_;
  index_t limit_;
  index_t held_ = 0;
  std::multimap<index_t, void*> free_;
  std::map<void*, index_t> taken_;  // recycled ones, with the size that they have
};

}  // namespace spectx::bench
