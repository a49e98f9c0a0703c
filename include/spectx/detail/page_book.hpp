// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/detail/page_store.hpp"
#include "spectx/detail/pool_tables.hpp"
#include "spectx/detail/token_pages.hpp"

namespace spectx::detail {

/// Who holds which pages, of both tiers. Token pages: every resident group of a request holds the
/// same number. Slot pages and host pages: every offloaded group likewise. A group that is changing
/// its tier holds what it comes from and, under `next`, what it goes to. Callers reserve first, so
/// that nothing here fails half-way.
class PageBook {
 public:
  PageBook(Backend& backend, const ModelShape& shape, const PoolPlan& plan,
           const PoolLayout& layout, Memories memories, PageLender* lender)
      : plan_(plan),
        layout_(layout),
        arena(memories.device, Tier::device, layout.page_bytes, plan.arena_pages, plan.arena_pages),
        host(memories.host, Tier::host, layout.host_page_bytes, plan.host_pages,
             std::max<index_t>(1, kHostChunkBytes / layout.host_page_bytes)),
        tables(backend, shape, plan, layout, memories.device),
        tokens(arena, lender, plan, layout),
        held_(static_cast<std::size_t>(plan.max_requests)),
        staging_(memories.device, layout.staging_bytes) {
    arena.reserve(plan.arena_pages);
  }

  struct Pages {
    index_t device = 0, host = 0;  // of the arena and the host tier
    index_t lent = 0;
  };

  /// Pages that rows up to `length` need beyond what the request holds.
  Pages missing(RequestId r, index_t length) const {
    const Held& h = held(r);
    const index_t pages = ceil_div(length, plan_.page_rows);
    const index_t keys = layout_.key_page_rows == 0 ? 0 : ceil_div(length, layout_.key_page_rows);
    const index_t resident = tables.resident_groups(r);
    Pages n;
    n.device = std::max<index_t>(0, keys - h.keys);
    (tokens.is_lent() ? n.lent : n.device) += std::max<index_t>(0, pages - h.tokens) * resident;
    n.host = std::max<index_t>(0, pages - h.host) * (layout_.groups - resident);
    return n;
  }

  /// Takes the token pages among them, which grow() then uses; false if it cannot.
  bool take_tokens(RequestId r, index_t length, StreamView stream) noexcept {
    return tokens.take(more_tokens(r, length), stream);
  }
  /// Gives back what take_tokens took.
  void give_tokens(RequestId r, index_t length, StreamView stream) noexcept {
    tokens.give(more_tokens(r, length), stream);
  }
  /// Takes the others, reserved by the caller.
  void grow(RequestId r, index_t length) {
    Held& h = held(r);
    const index_t pages = ceil_div(length, plan_.page_rows);
    const index_t resident = tables.resident_groups(r);
    if (h.tokens < pages) tables.mark(r);
    h.tokens = std::max(h.tokens, pages);
    for (; h.host < pages && resident < layout_.groups; ++h.host) {
      for (index_t g = resident; g < layout_.groups; ++g) {
        tables.host_page(r, g, h.host) = host.take();
      }
      tables.mark(r);
    }
    for (; layout_.key_page_rows > 0 && h.keys * layout_.key_page_rows < length; ++h.keys) {
      tables.key_page(r, h.keys) = arena.take();
      tables.mark(r);
    }
  }

  /// Gives back what rows from `length` on held, but keeps the head's key of row `length`: a host
  /// that reruns this row does not make it anew. 0 gives back everything.
  void shrink(RequestId r, index_t length, StreamView stream) noexcept {
    Held& h = held(r);
    const index_t pages = ceil_div(length, plan_.page_rows);
    const index_t resident = tables.resident_groups(r);
    tokens.give({r, tables.pages(r), 0, resident, pages, h.tokens}, stream);
    h.tokens = std::min(h.tokens, pages);
    while (h.host > pages && resident < layout_.groups) {
      --h.host;
      for (index_t g = resident; g < layout_.groups; ++g) host.give(tables.host_page(r, g, h.host));
    }
    const index_t keys = length == 0 ? 0 : length + 1;
    while (h.keys > 0 && (h.keys - 1) * layout_.key_page_rows >= keys) {
      arena.give(tables.key_page(r, --h.keys));
    }
  }

  /// Host pages for `pages` pages of groups [first, last), which are resident. Reserved by the
  /// caller; `from` are there.
  void hold_host(RequestId r, index_t first, index_t last, index_t from, index_t pages) {
    for (index_t g = first; g < last; ++g) {
      for (index_t i = from; i < pages; ++i) tables.host_page(r, g, i) = host.take();
    }
    tables.mark(r);
  }
  void drop_host(RequestId r, index_t first, index_t last, index_t pages) noexcept {
    for (index_t g = first; g < last; ++g) {
      for (index_t i = 0; i < pages; ++i) host.give(tables.host_page(r, g, i));
    }
  }

  /// Slots for each group, beside the current pages. Reserved by the caller.
  void hold_next_slots(RequestId r, index_t first, index_t last) {
    for (index_t g = first; g < last; ++g) {
      for (index_t i = 0; i < layout_.slot_pages; ++i) tables.next_page(r, g, i) = arena.take();
    }
    tables.mark(r);
  }
  void drop_next_slots(RequestId r, index_t first, index_t last) noexcept {
    for (index_t g = first; g < last; ++g) {
      for (index_t i = 0; i < layout_.slot_pages; ++i) arena.give(tables.next_page(r, g, i));
    }
  }
  /// Token pages for each group, beside the current pages; `from` are there. False: no room.
  bool hold_next_tokens(RequestId r, index_t first, index_t last, index_t from, index_t pages,
                        StreamView stream) {
    tables.mark(r);
    return tokens.take({r, tables.next_pages(r), first, last, from, pages}, stream);
  }
  void drop_next_tokens(RequestId r, index_t first, index_t last, index_t pages,
                        StreamView stream) noexcept {
    tokens.give({r, tables.next_pages(r), first, last, 0, pages}, stream);
  }

  /// Groups [target, resident) have their slots in `next` and all their rows in host pages: makes
  /// that current and frees their token pages. `host_pages` are held by each.
  void finish_down(RequestId r, index_t target, index_t host_pages, StreamView stream) {
    Held& h = held(r);
    const index_t resident = tables.resident_groups(r);
    tokens.give({r, tables.pages(r), target, resident, 0, h.tokens}, stream);
    for (index_t g = target; g < resident; ++g) {
      for (index_t i = 0; i < layout_.slot_pages; ++i)
        tables.page(r, g, i) = tables.next_page(r, g, i);
    }
    h.host = host_pages;
    if (target == 0) h.tokens = 0;
    tables.resident_groups(r) = static_cast<std::int32_t>(target);
    tables.mark(r);
  }
  /// Groups [resident, target) have their rows in `next`, `token_pages` each: makes that current
  /// and frees their slots and host pages.
  void finish_up(RequestId r, index_t target, index_t token_pages) {
    Held& h = held(r);
    const index_t resident = tables.resident_groups(r);
    for (index_t g = resident; g < target; ++g) {
      for (index_t i = 0; i < layout_.slot_pages; ++i) arena.give(tables.page(r, g, i));
      for (index_t i = 0; i < token_pages; ++i) tables.page(r, g, i) = tables.next_page(r, g, i);
    }
    drop_host(r, resident, target, h.host);
    h.tokens = token_pages;
    if (target == layout_.groups) h.host = 0;
    tables.resident_groups(r) = static_cast<std::int32_t>(target);
    tables.mark(r);
  }

  /// All rows are in `host_pages` host pages a group: frees everything on the device but head keys.
  void finish_park(RequestId r, index_t host_pages, StreamView stream) {
    Held& h = held(r);
    const index_t resident = tables.resident_groups(r);
    tokens.give({r, tables.pages(r), 0, resident, 0, h.tokens}, stream);
    give_slots(r, resident);
    h.host = host_pages;
    h.tokens = 0;
    tables.resident_groups(r) = 0;
    tables.mark(r);
  }
  /// Slots for every group of a parked request. Reserved by the caller.
  void finish_resume(RequestId r) {
    for (index_t g = 0; g < layout_.groups; ++g) {
      for (index_t i = 0; i < layout_.slot_pages; ++i) tables.page(r, g, i) = arena.take();
    }
    tables.mark(r);
  }
  /// Everything that an open request holds; it is resident again, and empty.
  void release(RequestId r, bool has_slots, StreamView stream) noexcept {
    shrink(r, 0, stream);
    if (has_slots) give_slots(r, tables.resident_groups(r));
    held(r) = {};
    tables.resident_groups(r) = static_cast<std::int32_t>(layout_.groups);
    tables.set_durable(r, 0);
  }

  /// Items that read everything of offloaded layers find it in the staging sets, from page `first`
  /// of a set on.
  void show_staging(RequestId r, index_t first, index_t pages) {
    for (index_t set = 0; set < 2; ++set) {
      for (index_t i = 0; i < pages; ++i) {
        tables.staging_page(r, set, i) =
            staging_.data() + (set * plan_.staging_pages + first + i) * layout_.layer_bytes;
      }
    }
    tables.mark(r);
  }

  index_t token_pages(RequestId r) const { return held(r).tokens; }
  index_t host_pages(RequestId r) const { return held(r).host; }

 private:
  static constexpr index_t kHostChunkBytes = index_t{64} << 20;

  struct Held {
    index_t tokens = 0;  // token pages of each resident group
    index_t host = 0;    // host pages of each offloaded group
    index_t keys = 0;    // pages of the retrieval head's keys
  };
  /// The token pages that rows up to `length` need beyond what is held.
  TokenPages::Range more_tokens(RequestId r, index_t length) noexcept {
    return {r,
            tables.pages(r),
            0,
            tables.resident_groups(r),
            held(r).tokens,
            ceil_div(length, plan_.page_rows)};
  }
  /// Of the groups from `first` on.
  void give_slots(RequestId r, index_t first) noexcept {
    for (index_t g = first; g < layout_.groups; ++g) {
      for (index_t i = 0; i < layout_.slot_pages; ++i) arena.give(tables.page(r, g, i));
    }
  }
  Held& held(RequestId r) { return held_[static_cast<std::size_t>(r.value)]; }
  const Held& held(RequestId r) const { return held_[static_cast<std::size_t>(r.value)]; }

  PoolPlan plan_;
  PoolLayout layout_;

 public:
  PageStore arena;
  PageStore host;
  PoolTables tables;
  TokenPages tokens;  // of resident groups

 private:
  std::vector<Held> held_;
  Buffer staging_;  // two sets of staging_pages pages of one layer
};

}  // namespace spectx::detail
