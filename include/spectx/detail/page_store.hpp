// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "spectx/memory.hpp"

namespace spectx::detail {

/// Pages of one size in one tier, handed out one by one. Grows by whole chunks up to `max_pages`
/// and keeps what it has. Owns its memory.
class PageStore {
 public:
  PageStore(MemoryResource& memory, Tier tier, index_t page_bytes, index_t max_pages,
            index_t chunk_pages)
      : memory_(&memory),
        tier_(tier),
        page_bytes_(page_bytes),
        max_pages_(max_pages),
        chunk_pages_(chunk_pages) {}

  /// Makes at least `pages` pages free. Throws OutOfMemory; what is there stays usable.
  void reserve(index_t pages) {
    if (pages > free_pages() + max_pages_ - total_) throw_out_of_memory(pages);
    while (free_pages() < pages) grow();
  }

  /// The same without the exception: false if there is no room.
  bool try_reserve(index_t pages) {
    try {
      reserve(pages);
    } catch (const OutOfMemory&) {
      return false;
    }
    return true;
  }

  /// One of the reserved pages.
  std::byte* take() noexcept {
    std::byte* page = free_.back();
    free_.pop_back();
    return page;
  }
  void give(std::byte* page) noexcept { free_.push_back(page); }

  [[noreturn]] void throw_out_of_memory(index_t pages) const {
    throw OutOfMemory(tier_, pages * page_bytes_,
                      (free_pages() + max_pages_ - total_) * page_bytes_);
  }

  index_t free_pages() const noexcept { return static_cast<index_t>(free_.size()); }
  /// Pages that could be taken after growing.
  index_t available_pages() const noexcept { return free_pages() + max_pages_ - total_; }
  index_t used_bytes() const noexcept { return (total_ - free_pages()) * page_bytes_; }
  index_t allocated_bytes() const noexcept { return total_ * page_bytes_; }

 private:
  void grow() {
    const index_t pages = std::min(chunk_pages_, max_pages_ - total_);
    free_.reserve(static_cast<std::size_t>(total_ + pages));  // so that give() never allocates
    chunks_.reserve(chunks_.size() + 1);
    Buffer chunk(*memory_, pages * page_bytes_);
    for (index_t i = pages; i-- > 0;) free_.push_back(chunk.data() + i * page_bytes_);
    chunks_.push_back(std::move(chunk));
    total_ += pages;
  }

  MemoryResource* memory_;
  Tier tier_;
  index_t page_bytes_;
  index_t max_pages_;
  index_t chunk_pages_;
  index_t total_ = 0;
  std::vector<Buffer> chunks_;
  std::vector<std::byte*> free_;
};

/// Splits one block into aligned arrays, in the order of the calls.
class Carver {
 public:
  explicit Carver(std::byte* base) noexcept : next_(base) {}

  template <class T>
  T* take(index_t bytes) noexcept {
    T* array = reinterpret_cast<T*>(next_);
    next_ += bytes;
    return bytes == 0 ? nullptr : array;
  }

 private:
  std::byte* next_;
};

}  // namespace spectx::detail
