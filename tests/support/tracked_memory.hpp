// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <iterator>
#include <map>

#include "spectx/memory.hpp"

namespace spectx::test {

/// Passes on to another resource and knows what it has handed out.
class TrackedMemory final : public MemoryResource {
 public:
  explicit TrackedMemory(MemoryResource& memory) : memory_(memory) {}
  void* allocate(index_t bytes, index_t alignment = 256) override {
    void* const memory = memory_.allocate(bytes, alignment);
    blocks_[static_cast<std::byte*>(memory)] = bytes;
    return memory;
  }
  void deallocate(void* memory, index_t bytes) noexcept override {
    blocks_.erase(static_cast<std::byte*>(memory));
    memory_.deallocate(memory, bytes);
  }
  bool has(const void* address) const {
    const auto after = blocks_.upper_bound(static_cast<const std::byte*>(address));
    if (after == blocks_.begin()) return false;
    const auto [begin, bytes] = *std::prev(after);
    return address < begin + bytes;
  }

 private:
  MemoryResource& memory_;
  std::map<const std::byte*, index_t> blocks_;
};

}  // namespace spectx::test
