// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>

#include "spectx/detail/page_book.hpp"

namespace spectx::detail {

/// Groups that change their tier while steps go on. A move copies in the background what is there,
/// then is settled between two steps: the rest is copied, the tables flip, the pages are freed.
class TierMover {
 public:
  TierMover(Backend& backend, PageBook& book, const PoolPlan& plan, const PoolLayout& layout)
      : backend_(backend), book_(book), plan_(plan), layout_(layout) {
    moves_.reserve(static_cast<std::size_t>(plan.max_requests));
    for (index_t r = 0; r < plan.max_requests; ++r) moves_.push_back(Move{backend.make_event()});
  }

  bool is_moving(RequestId r) const { return move(r).target >= 0; }
  /// Resident groups once the move of a request is done; -1: none is under way.
  std::int32_t target(RequestId r) const { return static_cast<std::int32_t>(move(r).target); }
  bool is_any_leaving() const {
    for (const Move& m : moves_) {
      if (m.target >= 0 && m.is_leaving) return true;
    }
    return false;
  }

  enum class Start { done, no_room, host_grows };

  /// Starts copying so that groups [0, target) will be resident, if there is room for both copies
  /// now. Reads after `stream`, runs on `move_stream`.
  /// @param waits  for a host tier that has to grow first
  Start start(RequestId r, index_t length, index_t target, StreamView stream,
              StreamView move_stream, bool waits = false) {
    const index_t resident = book_.tables.resident_groups(r);
    const bool is_leaving = target < resident;
    const index_t first = std::min(target, resident);
    const index_t last = std::max(target, resident);
    const index_t pages = is_leaving ? std::max(page_count(length), book_.host_pages(r))
                                     : std::max(page_count(length), book_.token_pages(r));
    if (is_leaving) {
      if (book_.arena.free_pages() < (last - first) * layout_.slot_pages) return Start::no_room;
      if (!reserve_host((last - first) * pages, waits)) {
        const bool may_grow = book_.host.available_pages() >= (last - first) * pages;
        return may_grow && !waits ? Start::host_grows : Start::no_room;
      }
      book_.hold_next_slots(r, first, last);
      book_.hold_host(r, first, last, 0, pages);
    } else if (!book_.hold_next_tokens(r, first, last, 0, pages, stream)) {
      return Start::no_room;
    }

    Move& m = move(r);
    m.target = target;
    m.is_leaving = is_leaving;
    m.pages = pages;
    m.copied = is_leaving ? length : std::min<index_t>(length, book_.tables.durable(r));
    book_.tables.upload(stream);
    backend_.record(m.event, stream);
    backend_.wait(move_stream, m.event);
    for (index_t g = first; g < last; ++g) {
      const RowPlace from = is_leaving ? tokens(r, g) : host(r, g);
      const RowPlace to = is_leaving ? host(r, g) : next(r, g, RowPlace::Kind::tokens);
      copy_rows(r, g, from, to, 0, m.copied, move_stream);
    }
    backend_.record(m.event, move_stream);
    return Start::done;
  }

  /// Finishes a move whose copy is done, or, if `wait`, makes `stream` wait for the copy. False if
  /// it has to go on.
  bool settle(RequestId r, index_t length, StreamView stream, bool wait) {
    Move& m = move(r);
    if (!wait && !backend_.is_done(m.event)) return false;
    backend_.wait(stream, m.event);
    return m.is_leaving ? settle_leaving(r, length, stream, wait)
                        : settle_coming(r, length, stream);
  }

  /// `stream` waits for the copies of a move.
  void follow(RequestId r, StreamView stream) const {
    if (is_moving(r)) backend_.wait(stream, move(r).event);
  }
  /// Gives up a move, whose copies `stream` follows; the request stays as it is.
  void drop(RequestId r, StreamView stream) noexcept {
    Move& m = move(r);
    if (m.target < 0) return;
    const index_t resident = book_.tables.resident_groups(r);
    const index_t first = std::min(m.target, resident);
    const index_t last = std::max(m.target, resident);
    if (m.is_leaving) {
      book_.drop_next_slots(r, first, last);
      book_.drop_host(r, first, last, m.pages);
    } else {
      book_.drop_next_tokens(r, first, last, m.pages, stream);
    }
    m.target = -1;
  }

  /// Every row to the host tier, slots and token pages freed; gives up a move. Throws OutOfMemory
  /// (host); nothing changed.
  void park(RequestId r, index_t length, StreamView stream) {
    const index_t resident = book_.tables.resident_groups(r);
    const index_t pages = std::max(page_count(length), book_.host_pages(r));
    const Move& m = move(r);
    const bool gives_back = m.target >= 0 && m.is_leaving;
    book_.host.reserve(resident * pages - (gives_back ? (resident - m.target) * m.pages : 0));
    follow(r, stream);
    drop(r, stream);
    book_.hold_host(r, 0, resident, 0, pages);
    book_.tables.upload(stream);
    for (index_t g = 0; g < layout_.groups; ++g) {
      if (g < resident) {
        copy_rows(r, g, tokens(r, g), host(r, g), 0, length, stream);
      } else {
        copy_rows(r, g, slots(r, g), host(r, g), book_.tables.durable(r), length, stream);
      }
    }
    backend_.forget_slots({.pool = book_.tables.view(), .request = r, .first = 0}, stream);
    book_.tables.set_durable(r, length);
    book_.finish_park(r, pages, stream);
    book_.tables.upload(stream);
  }

  RowPlace tokens(RequestId r, index_t g) const {
    return {RowPlace::Kind::tokens, book_.tables.view().pages_of(r.value, g)};
  }
  RowPlace slots(RequestId r, index_t g) const {
    return {RowPlace::Kind::slots, book_.tables.view().pages_of(r.value, g)};
  }
  RowPlace staging(RequestId r, index_t set) const {
    return {RowPlace::Kind::staging,
            book_.tables.staging_table() + (2 * index_t{r.value} + set) * layout_.token_pages};
  }
  RowPlace host(RequestId r, index_t g) const {
    return {RowPlace::Kind::host, book_.tables.view().host_pages_of(r.value, g)};
  }
  /// @param layer  in the group, where a place is staging; -1: all
  void copy_rows(RequestId r, index_t g, RowPlace from, RowPlace to, index_t first, index_t last,
                 StreamView stream, index_t layer = -1) const {
    if (first >= last) return;
    backend_.move_rows({.pool = book_.tables.view(),
                        .request = r,
                        .group = g,
                        .from = from,
                        .to = to,
                        .first = first,
                        .last = last,
                        .layer = layer},
                       stream);
  }

 private:
  struct Move {
    Event event;
    index_t target = -1;  // resident groups when it is done; -1: none
    bool is_leaving = false;
    index_t pages = 0;   // host pages (leaving) or token pages (coming) held by each moving group
    index_t copied = 0;  // rows below are copied once `event` is done
  };

  bool settle_leaving(RequestId r, index_t length, StreamView stream, bool wait) {
    Move& m = move(r);
    const index_t resident = book_.tables.resident_groups(r);
    const index_t pages = std::max({m.pages, page_count(length), book_.host_pages(r)});
    const index_t more = (resident - m.target) * (pages - m.pages);
    if (!reserve_host(more, wait)) return false;
    assert(resident == layout_.groups || pages == book_.host_pages(r));
    book_.hold_host(r, m.target, resident, m.pages, pages);
    m.pages = pages;
    book_.tables.upload(stream);
    for (index_t g = m.target; g < resident; ++g) {
      copy_rows(r, g, tokens(r, g), host(r, g), m.copied, length, stream);
      copy_rows(r, g, tokens(r, g), next(r, g, RowPlace::Kind::slots), 0, length, stream);
    }
    if (resident == layout_.groups) {
      book_.tables.set_durable(r, length);
    }
    book_.finish_down(r, m.target, pages, stream);
    book_.tables.upload(stream);
    m.target = -1;
    return true;
  }

  bool settle_coming(RequestId r, index_t length, StreamView stream) {
    Move& m = move(r);
    const index_t resident = book_.tables.resident_groups(r);
    const index_t pages = std::max({m.pages, page_count(length), book_.token_pages(r)});
    if (!book_.hold_next_tokens(r, resident, m.target, m.pages, pages, stream)) {
      drop(r, stream);
      return false;
    }
    m.pages = pages;
    book_.tables.upload(stream);
    const index_t durable = std::min<index_t>(length, book_.tables.durable(r));
    for (index_t g = resident; g < m.target; ++g) {
      const RowPlace to = next(r, g, RowPlace::Kind::tokens);
      copy_rows(r, g, host(r, g), to, m.copied, durable, stream);
      copy_rows(r, g, slots(r, g), to, durable, length, stream);
    }
    book_.finish_up(r, m.target, pages);
    book_.tables.upload(stream);
    m.target = -1;
    return true;
  }

  bool reserve_host(index_t pages, bool waits) {
    return waits ? book_.host.wait_reserve(pages) : book_.host.try_reserve(pages);
  }
  RowPlace next(RequestId r, index_t g, RowPlace::Kind kind) const {
    return {kind, book_.tables.next_pages_of(r, g)};
  }
  index_t page_count(index_t length) const { return ceil_div(length, plan_.page_rows); }
  Move& move(RequestId r) { return moves_[static_cast<std::size_t>(r.value)]; }
  const Move& move(RequestId r) const { return moves_[static_cast<std::size_t>(r.value)]; }

  Backend& backend_;
  PageBook& book_;
  PoolPlan plan_;
  PoolLayout layout_;
  std::vector<Move> moves_;
};

}  // namespace spectx::detail
