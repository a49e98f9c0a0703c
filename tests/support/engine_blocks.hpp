// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <random>
#include <utility>

#include "block_cache.hpp"
#include "spectx/backend.hpp"
#include "spectx/pool_layout.hpp"

namespace spectx::test {

/// How a host engine lends.
enum class Lends { nothing, groups, blocks, tensors };

/// `plan` with as many of its arena's pages lent as are said.
inline PoolPlan lent(PoolPlan plan, const ModelShape& shape, Lends how, index_t pages) {
  if (how == Lends::nothing) return plan;
  plan.lent_pages = pages;
  const PoolLayout layout(shape, plan);
  if (how == Lends::blocks) plan.lent_group_stride = layout.page_bytes;  // a block: all groups
  if (how == Lends::tensors)  // a tensor for each group, all with the same blocks
    plan.lent_group_stride = pages / layout.groups * layout.page_bytes;
  return plan;
}

/// The cache of a host engine that refuses by chance, hands out pages in no order, ruins those that
/// come back, and keeps the block table that it would keep.
class EngineBlocks final : public BlockCache {
 public:
  EngineBlocks(Backend& backend, const ModelShape& shape, const PoolPlan& plan, unsigned seed = 1)
      : BlockCache(backend.memories().device, plan.lent_pages / pages_of(shape, plan),
                   pages_of(shape, plan) * PoolLayout(shape, plan).page_bytes),
        backend_(backend),
        page_bytes_(PoolLayout(shape, plan).page_bytes),
        group_stride_(plan.lent_group_stride),
        groups_(pages_of(shape, plan)),
        random_(seed) {
    // Blocks of a tensor for each group are the pages of the first one.
    for (std::size_t i = 0; i < free_.size() && group_stride_ > page_bytes_; ++i) {
      free_[i] = memory_.data() + static_cast<index_t>(i) * page_bytes_;
    }
    const Stream stream = backend.make_stream();
    for (std::byte* page : free_) ruin(page, stream);
    backend.synchronize(stream);
  }

  bool lend(RequestId request, index_t group, std::span<std::byte*> pages,
            StreamView stream) noexcept override {
    is_misused = is_misused || pages.empty() || (group_stride_ > 0 && group != 0);
    const bool refuses = lends++ == refuse_at || static_cast<int>(random_() % 100) < refuses_of_100;
    std::shuffle(free_.begin(), free_.end(), random_);
    if (refuses || !BlockCache::lend(request, group, pages, stream)) {
      ++refused;
      return false;
    }
    std::vector<std::byte*>& mine = tables_[{request.value, group}];
    mine.insert(mine.end(), pages.begin(), pages.end());
    return true;
  }
  void release_pages(RequestId request, index_t group, std::span<std::byte* const> pages,
                     StreamView stream) noexcept override {
    std::vector<std::byte*>& mine = tables_[{request.value, group}];
    if (pages.empty() || pages.size() > mine.size() ||
        !std::equal(pages.begin(), pages.end(), mine.end() - std::ssize(pages))) {
      is_misused = true;
      return;
    }
    mine.resize(mine.size() - pages.size());
    try {
      for (std::byte* page : pages) ruin(page, stream);
    } catch (const Error&) {
      // The device is lost.
    }
    BlockCache::release_pages(request, group, pages, stream);
  }

  /// Pages that are lent now, of all groups.
  index_t held() const {
    index_t pages = 0;
    for (const auto& [key, table] : tables_) pages += std::ssize(table) * groups_;
    return pages;
  }
  index_t held_bytes() const { return held() * page_bytes_; }

  int refuses_of_100 = 0;
  index_t refuse_at = -1;  // this lend
  index_t lends = 0, refused = 0;
  bool is_misused = false;  // against PageLender's rules

 private:
  static index_t pages_of(const ModelShape& shape, const PoolPlan& plan) {
    return plan.moves_whole_requests() ? PoolLayout(shape, plan).groups : 1;
  }
  /// NaN in every type of rows.
  void ruin(std::byte* block, StreamView stream) {
    for (index_t g = 0; g < groups_; ++g) {
      backend_.fill(block + g * group_stride_, 0xff, page_bytes_, stream);
    }
  }

  Backend& backend_;
  index_t page_bytes_;
  index_t group_stride_;
  index_t groups_;  // of a block
  std::mt19937 random_;
  std::map<std::pair<std::int32_t, index_t>, std::vector<std::byte*>> tables_;
};

}  // namespace spectx::test
