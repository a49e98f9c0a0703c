// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>

#include "spectx/memory.hpp"

namespace spectx::bench {

/// Keeps what is given back for the next who asks for as much: pinning 100 GB takes a minute, and a
/// program runs many configurations. Gives it up where nothing else is left.
class RecycledMemory final : public MemoryResource {
 public:
  explicit RecycledMemory(MemoryResource& memory) noexcept : memory_(memory) {}
  RecycledMemory(RecycledMemory&&) = delete;
  ~RecycledMemory() override { give_up(); }

  void* allocate(index_t bytes, index_t alignment = 256) override {
    if (const auto found = free_.find(bytes); found != free_.end()) {
      void* const memory = found->second;
      free_.erase(found);
      return memory;
    }
    try {
      return memory_.allocate(bytes, alignment);
    } catch (const OutOfMemory&) {
      if (free_.empty()) throw;
    }
    give_up();
    return memory_.allocate(bytes, alignment);
  }
  void deallocate(void* memory, index_t bytes) noexcept override {
    try {
      free_.emplace(bytes, memory);
    } catch (const std::bad_alloc&) {
      memory_.deallocate(memory, bytes);
    }
  }

 private:
  void give_up() noexcept {
    for (const auto& [bytes, memory] : free_) memory_.deallocate(memory, bytes);
    free_.clear();
  }

  MemoryResource& memory_;
  std::multimap<index_t, void*> free_;
};

}  // namespace spectx::bench
