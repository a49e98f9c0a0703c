// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "spectx/detail/chunk_grower.hpp"

namespace spectx::detail {

/// Pages of one size in one tier, handed out one by one. Grows by whole chunks up to `max_pages`
/// and keeps what it has. Where the memory is slow and much may be wanted, chunks are taken on a
/// thread of their own, ahead of need. Owns its memory.
class PageStore {
 public:
  PageStore(MemoryResource& memory, Tier tier, index_t page_bytes, index_t max_pages,
            index_t chunk_pages)
      : memory_(&memory),
        tier_(tier),
        page_bytes_(page_bytes),
        max_pages_(max_pages),
        chunk_pages_(chunk_pages) {
    if (!memory.is_slow() || max_pages * page_bytes < kLeastInBackground) return;
    std::vector<index_t> bytes;
    for (index_t page = 0; page < max_pages; page += chunk_pages) {
      bytes.push_back(std::min(chunk_pages, max_pages - page) * page_bytes);
    }
    try {
      grower_ = std::make_unique<ChunkGrower>(memory, std::move(bytes));
    } catch (const std::system_error&) {
      return;  // without a thread it grows when it has to
    }
    grow_ahead(0, /*is_needed=*/false);
  }

  /// Makes at least `pages` pages free, and waits for them. Throws OutOfMemory; what is there stays
  /// usable.
  void reserve(index_t pages) {
    collect();
    if (pages > available_pages()) throw_out_of_memory(pages);
    if (grower_) grow_ahead(pages, /*is_needed=*/free_pages() < pages);
    waits_ += grower_ && free_pages() < pages ? 1 : 0;
    while (free_pages() < pages) {
      prepare();
      adopt(grower_ ? grower_->wait() : Buffer(*memory_, next_chunk() * page_bytes_));
    }
  }

  /// The same without the exception: false if there is no room. Where the memory is slow it does
  /// not wait: false if there is no room yet, which then is on its way.
  bool try_reserve(index_t pages) {
    collect();
    if (grower_ && pages <= available_pages() && free_pages() < pages) {
      grow_ahead(pages, /*is_needed=*/true);
      return false;
    }
    return wait_reserve(pages);
  }
  /// reserve() without the exception.
  bool wait_reserve(index_t pages) {
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

  [[noreturn]] void throw_out_of_memory(index_t pages, const std::string& more = {}) const {
    throw OutOfMemory(tier_, pages * page_bytes_, available_pages() * page_bytes_, held() + more);
  }
  /// For a message: what is used, and of how much.
  std::string held() const {
    return "; " + std::string(tier_name(tier_)) + " tier: " + std::to_string(used_bytes()) +
           " of " + std::to_string(max_pages_ * page_bytes_) + " bytes in use";
  }

  index_t free_pages() const noexcept { return static_cast<index_t>(free_.size()); }
  /// Pages that could be taken after growing.
  index_t available_pages() const noexcept { return free_pages() + max_pages_ - total_; }
  index_t used_bytes() const noexcept { return (total_ - free_pages()) * page_bytes_; }
  /// With what the growing thread has and nobody needed yet.
  index_t allocated_bytes() const {
    return total_ * page_bytes_ + (grower_ ? grower_->ready_bytes() : 0);
  }
  /// reserve()s that waited for memory.
  index_t waits() const noexcept { return waits_; }

 private:
  static constexpr index_t kLeastInBackground = index_t{256} << 20;
  static constexpr index_t kAheadBytes = index_t{2} << 30;

  index_t next_chunk() const noexcept { return std::min(chunk_pages_, max_pages_ - total_); }
  /// So that neither adopt() nor give() allocates.
  void prepare() {
    free_.reserve(static_cast<std::size_t>(total_ + next_chunk()));
    chunks_.reserve(chunks_.size() + 1);
  }
  void adopt(Buffer chunk) noexcept {
    const index_t pages = next_chunk();
    for (index_t i = pages; i-- > 0;) free_.push_back(chunk.data() + i * page_bytes_);
    chunks_.push_back(std::move(chunk));
    total_ += pages;
  }
  /// What has come meanwhile.
  void collect() {
    while (grower_ && total_ < max_pages_) {
      prepare();
      Buffer chunk = grower_->take();
      if (chunk.bytes() == 0) return;
      adopt(std::move(chunk));
    }
  }
  /// `pages` beside those that are held, and some more.
  void grow_ahead(index_t pages, bool is_needed) {
    const index_t wanted = total_ - free_pages() + pages + kAheadBytes / page_bytes_;
    grower_->want((std::min(max_pages_, wanted) + chunk_pages_ - 1) / chunk_pages_, is_needed);
  }

  MemoryResource* memory_;
  Tier tier_;
  index_t page_bytes_;
  index_t max_pages_;
  index_t chunk_pages_;
  index_t total_ = 0;
  index_t waits_ = 0;
  std::vector<Buffer> chunks_;
  std::vector<std::byte*> free_;
  std::unique_ptr<ChunkGrower> grower_;  // of a slow memory
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
