// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdlib>
#include <limits>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "spectx/memory.hpp"

namespace spectx::cpu {

/// Memory of the process, on behalf of one tier. Large blocks ask for huge pages: scattered rows
/// cost a page walk each otherwise. Thread-safe.
class HeapMemory final : public MemoryResource {
 public:
  explicit HeapMemory(Tier tier) noexcept : tier_(tier) {}

  void* allocate(index_t bytes, index_t alignment = 256) override {
    expects(bytes >= 0, "HeapMemory::allocate: bytes must not be negative");
    expects(alignment > 0 && (alignment & (alignment - 1)) == 0,
            "HeapMemory::allocate: alignment must be a power of two");
    const bool is_large = bytes >= kLargeBytes;
    const index_t grain = std::max(alignment, is_large ? kHugePageBytes : kSmallestAlignment);
    if (bytes > std::numeric_limits<index_t>::max() - grain) {
      throw OutOfMemory(tier_, bytes, free_bytes());
    }
    const index_t rounded = std::max((bytes + grain - 1) / grain, index_t{1}) * grain;
    void* memory =
        std::aligned_alloc(static_cast<std::size_t>(grain), static_cast<std::size_t>(rounded));
    if (memory == nullptr) throw OutOfMemory(tier_, bytes, free_bytes());
#if defined(__linux__)
    // Advice: without huge pages everything still works.
    if (is_large)
      static_cast<void>(madvise(memory, static_cast<std::size_t>(rounded), MADV_HUGEPAGE));
#endif
    return memory;
  }

  void deallocate(void* memory, index_t) noexcept override { std::free(memory); }

 private:
  static constexpr index_t kSmallestAlignment = 64;  // bytes: a cache line
  static constexpr index_t kLargeBytes = index_t{4} << 20;
  static constexpr index_t kHugePageBytes = index_t{2} << 20;

  /// Physical memory that nothing uses; 0 where the system does not say.
  static index_t free_bytes() noexcept {
#if defined(__linux__)
    const long pages = sysconf(_SC_AVPHYS_PAGES);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? index_t{pages} * page_bytes : 0;
#else
    return 0;
#endif
  }

  Tier tier_;
};

}  // namespace spectx::cpu
