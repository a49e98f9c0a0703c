// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>

#include "spectx/detail/page_store.hpp"
#include "spectx/page_lender.hpp"
#include "spectx/pool_layout.hpp"

namespace spectx::detail {

/// Where the pages of resident groups come from: the pool's arena, or a host engine.
class TokenPages {
 public:
  /// Pages [begin, end) of groups [first, last) of a request, in one of its page tables.
  struct Range {
    RequestId request;
    std::byte** table;  // [groups, page_table_columns], host
    index_t first, last;
    index_t begin, end;

    index_t pages() const noexcept {
      return first < last && begin < end ? (last - first) * (end - begin) : 0;
    }
  };

  TokenPages(PageStore& arena, PageLender* lender, const PoolPlan& plan, const PoolLayout& layout)
      : arena_(arena),
        lender_(lender),
        group_stride_(plan.lent_group_stride),
        groups_(layout.groups),
        columns_(layout.page_table_columns),
        page_bytes_(layout.page_bytes) {}

  /// Fills the range; false: there is no room, nothing was taken.
  bool take(const Range& range, StreamView stream) noexcept {
    if (range.pages() == 0) return true;
    if (lender_ == nullptr) return take_own(range);
    if (group_stride_ > 0) return take_blocks(range, stream);
    for (index_t g = range.first; g < range.last; ++g) {
      if (lender_->lend(range.request, g, pages_of(range, g), stream)) continue;
      release(range, range.first, g, stream);
      return false;
    }
    lent_pages_ += range.pages();
    return true;
  }
  /// The range still names them.
  void give(const Range& range, StreamView stream) noexcept {
    if (range.pages() == 0) return;
    if (lender_ == nullptr) {
      for (index_t g = range.first; g < range.last; ++g) {
        for (std::byte* page : pages_of(range, g)) arena_.give(page);
      }
      return;
    }
    assert(group_stride_ == 0 || (range.first == 0 && range.last == groups_));
    release(range, range.first, group_stride_ > 0 ? 1 : range.last, stream);
    lent_pages_ -= range.pages();
  }

  bool is_lent() const noexcept { return lender_ != nullptr; }
  index_t lent_bytes() const noexcept { return lent_pages_ * page_bytes_; }

 private:
  std::span<std::byte*> pages_of(const Range& range, index_t g) const noexcept {
    return {range.table + g * columns_ + range.begin,
            static_cast<std::size_t>(range.end - range.begin)};
  }
  bool take_own(const Range& range) noexcept {
    if (arena_.free_pages() < range.pages()) return false;
    for (index_t g = range.first; g < range.last; ++g) {
      for (std::byte*& page : pages_of(range, g)) page = arena_.take();
    }
    return true;
  }
  bool take_blocks(const Range& range, StreamView stream) noexcept {
    assert(range.first == 0 && range.last == groups_);
    const std::span<std::byte*> blocks = pages_of(range, 0);
    if (!lender_->lend(range.request, 0, blocks, stream)) return false;
    for (index_t g = 1; g < groups_; ++g) {
      const std::span<std::byte*> pages = pages_of(range, g);
      for (std::size_t i = 0; i < pages.size(); ++i) pages[i] = blocks[i] + g * group_stride_;
    }
    lent_pages_ += range.pages();
    return true;
  }
  void release(const Range& range, index_t first, index_t last, StreamView stream) noexcept {
    for (index_t g = first; g < last; ++g) {
      lender_->release_pages(range.request, g, pages_of(range, g), stream);
    }
  }

  PageStore& arena_;
  PageLender* lender_;    // null: the arena
  index_t group_stride_;  // of its blocks; 0: a group's pages are lent apart
  index_t groups_;
  index_t columns_;
  index_t page_bytes_;
  index_t lent_pages_ = 0;
};

}  // namespace spectx::detail
