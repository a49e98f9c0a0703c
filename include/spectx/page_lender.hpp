// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "spectx/stream.hpp"
#include "spectx/types.hpp"

namespace spectx {

/// A host engine with a paged cache of its own, whose pages hold the rows of resident groups; a
/// KVPool's slots, head keys and staging stay in its arena. A page is device memory of
/// PoolLayout::page_bytes, 16-byte aligned, laid out as PoolLayout says.
///
/// Called between steps, in KVPool::schedule, close and rewind and PrefetchPipeline::apply and
/// park; must not call the pool. The pages of a group of a request come and go at its end, in the
/// order of its tokens. PoolPlan::lent_group_stride: a page is one of a block that has all groups;
/// then `group` is 0 and groups of a request leave and return together.
class PageLender {
 public:
  virtual ~PageLender() = default;
  /// Fills `pages`; false: refused, none is lent. The pool writes them after what is on `stream`.
  virtual bool lend(RequestId request, index_t group, std::span<std::byte*> pages,
                    StreamView stream) noexcept = 0;
  /// Takes them back: their rows are in the host tier or forgotten. What still reads or writes
  /// them is on `stream`, or `stream` waits for it: later work there may overwrite them.
  virtual void release_pages(RequestId request, index_t group, std::span<std::byte* const> pages,
                             StreamView stream) noexcept = 0;
};

}  // namespace spectx
