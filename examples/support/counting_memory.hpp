// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <mutex>

#include "spectx/memory.hpp"

namespace spectx::support {

/// Passes on to another resource and counts what is held. Thread-safe if the other is.
class CountingMemory final : public MemoryResource {
 public:
  explicit CountingMemory(MemoryResource& memory) noexcept : memory_(memory) {}

  void* allocate(index_t bytes, index_t alignment = 256) override {
    void* const data = memory_.allocate(bytes, alignment);
    const std::lock_guard lock(mutex_);
    held_ += bytes;
    peak_ = std::max(peak_, held_);
    return data;
  }
  void deallocate(void* data, index_t bytes) noexcept override {
    memory_.deallocate(data, bytes);
    const std::lock_guard lock(mutex_);
    held_ -= bytes;
  }
  bool is_slow() const noexcept override { return memory_.is_slow(); }
  index_t held_bytes() const {
    const std::lock_guard lock(mutex_);
    return held_;
  }
  index_t peak_bytes() const {
    const std::lock_guard lock(mutex_);
    return peak_;
  }

 private:
  MemoryResource& memory_;
  mutable std::mutex mutex_;
  index_t held_ = 0;
  index_t peak_ = 0;
};

}  // namespace spectx::support
