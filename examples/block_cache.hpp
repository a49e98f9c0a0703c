// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <iterator>
#include <vector>

#include "spectx/memory.hpp"
#include "spectx/page_lender.hpp"

/// The paged cache of a host engine, as small as it can be: blocks of one allocation and a list of
/// the free ones. Steps run on one stream, so that a block can go to anybody at once.
class BlockCache : public spectx::PageLender {
 public:
  BlockCache(spectx::MemoryResource& memory, spectx::index_t blocks, spectx::index_t block_bytes)
      : memory_(memory, blocks * block_bytes) {
    for (spectx::index_t i = 0; i < blocks; ++i) free_.push_back(memory_.data() + i * block_bytes);
  }

  bool lend(spectx::RequestId, spectx::index_t, std::span<std::byte*> pages,
            spectx::StreamView) noexcept override {
    if (pages.size() > free_.size()) return false;
    std::copy(free_.end() - std::ssize(pages), free_.end(), pages.begin());
    free_.resize(free_.size() - pages.size());
    return true;
  }
  void release_pages(spectx::RequestId, spectx::index_t, std::span<std::byte* const> pages,
                     spectx::StreamView) noexcept override {
    free_.insert(free_.end(), pages.begin(), pages.end());
  }

 protected:
  spectx::Buffer memory_;
  std::vector<std::byte*> free_;
};
