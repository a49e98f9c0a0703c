// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bodies of KVPool that make and end batches; include spectx/kv_pool.hpp.
#include "spectx/kv_pool.hpp"

namespace spectx {

inline ScheduledItem KVPool::check_item(const BatchItem& item) const {
  const Request& r = at(item.request);
  const auto rows = static_cast<index_t>(item.tokens.size());
  expects(rows > 0, "KVPool::schedule: an item has no tokens");
  expects(!r.is_parked, "KVPool::schedule: the request is parked");
  expects(state(item.request) != RequestState::warming, "KVPool::schedule: the request is warming");
  expects(r.length + rows <= r.final_length,
          "KVPool::schedule: the request grows past its final_length");
  for (const std::int32_t token : item.tokens) {
    expects(token >= 0 && token < shape_.vocabulary,
            "KVPool::schedule: a token is not in the vocabulary");
  }
  for (const ScheduledItem& other : scheduled_) {
    expects(!(other.request == item.request), "KVPool::schedule: a request has two items");
  }
  const bool is_offloaded = !is_resident(item.request);
  const bool selects = !item.is_dense && (is_offloaded || r.length + rows > plan_.selection.budget);
  // reserve() may let a group leave that is on its way.
  const bool may_be_offloaded = is_offloaded || mover_.is_moving(item.request) || r.leaving_to >= 0;
  const index_t waiting = may_be_offloaded ? plan_.write_batch : 0;
  const bool may_select = selects || (!item.is_dense && may_be_offloaded);
  expects(!may_select || waiting + rows <= plan_.selection.recent_window,
          "KVPool::schedule: recent_window must hold an item's rows and the rows of a write batch");
  return {.request = item.request,
          .first = r.length,
          .rows = rows,
          .is_dense = item.is_dense,
          .selects = selects};
}

inline const Batch& KVPool::schedule(std::span<const BatchItem> items, StreamView stream) {
  expects(!backend_.is_capturing(stream), "KVPool::schedule: cannot be captured");
  settle_moves(stream, /*wait=*/false);
  scheduled_.clear();
  expects(static_cast<index_t>(items.size()) <= plan_.max_requests,
          "KVPool::schedule: more items than max_requests");
  index_t rows = 0;
  for (const BatchItem& item : items) {
    scheduled_.push_back(check_item(item));
    rows += scheduled_.back().rows;
  }
  expects(rows <= plan_.max_step_rows, "KVPool::schedule: more rows than max_step_rows");
  reserve(stream);
  for (const ScheduledItem& item : scheduled_) book_.grow(item.request, item.first + item.rows);
  if (rows > 0) follow_copies(stream);  // they read the arrays of the batch before
  index_t staged_pages = 0;
  for (const ScheduledItem& item : scheduled_) stage(item, staged_pages, stream);
  book_.tables.upload(stream);
  return writer_.write(items, scheduled_, stream);
}

/// Makes the pages free that scheduled_ will take, and takes those of tokens; throws OutOfMemory
/// before anything changed.
inline void KVPool::reserve(StreamView stream) {
  for (bool has_waited = false;; has_waited = true) {
    detail::PageBook::Pages need;
    index_t staged = 0;
    for (const ScheduledItem& item : scheduled_) {
      const auto pages = book_.missing(item.request, item.first + item.rows);
      need.device += pages.device;
      need.host += pages.host;
      need.lent += pages.lent;
      if (!item.selects && !is_resident(item.request)) {
        staged += ceil_div(item.first + item.rows, plan_.page_rows);
      }
    }
    if (staged > plan_.staging_pages) {
      throw OutOfMemory(Tier::device, 2 * staged * layout_.layer_bytes, layout_.staging_bytes);
    }
    book_.host.reserve(need.host);
    if (!let_groups_leave(need.device, /*is_refused=*/false, stream)) {
      if (need.device > book_.arena.free_pages()) {
        book_.arena.throw_out_of_memory(need.device, book_.host.held());
      }
      if (take_tokens(stream)) return;
      if (!let_groups_leave(need.device, /*is_refused=*/true, stream)) {
        throw OutOfMemory(Tier::lender, need.lent * layout_.page_bytes, 0,
                          "; refused with " + std::to_string(book_.tokens.lent_bytes()) +
                              " bytes lent" + book_.host.held());
      }
    }
    stalled_batches_ += has_waited ? 0 : 1;
  }
}

/// The token pages of all items or of none.
inline bool KVPool::take_tokens(StreamView stream) noexcept {
  for (std::size_t i = 0; i < scheduled_.size(); ++i) {
    const auto end = [&](std::size_t k) { return scheduled_[k].first + scheduled_[k].rows; };
    if (book_.take_tokens(scheduled_[i].request, end(i), stream)) continue;
    while (i-- > 0) book_.give_tokens(scheduled_[i].request, end(i), stream);
    return false;
  }
  return true;
}

/// If a batch would not find its `pages`, or a lender refused some, groups leave now whose move is
/// under way or waits for the host tier to grow. While there are such moves, the pages of one
/// group's slots are kept, without which no other could ever leave, and those of a prompt's next
/// chunk. Whether they left.
inline bool KVPool::let_groups_leave(index_t pages, bool is_refused, StreamView stream) {
  const auto end = requests_.end();
  const auto waits = [&](const Request& r) { return r.leaving_to >= 0 && !is_warming(r); };
  auto waiting = std::find_if(requests_.begin(), end, waits);
  const auto is_chunk = [&](const ScheduledItem& item) { return item.rows >= plan_.page_rows; };
  const bool has_chunk = std::any_of(scheduled_.begin(), scheduled_.end(), is_chunk);
  const bool may_leave = waiting != end || mover_.is_any_leaving();
  const index_t kept = may_leave ? layout_.slot_pages + (has_chunk ? pages : 0) : 0;
  if (!is_refused && pages + kept <= book_.arena.free_pages()) return false;
  for (; !mover_.is_any_leaving() && waiting != end; waiting = std::find_if(waiting, end, waits)) {
    const RequestId request = id(static_cast<std::size_t>(waiting - requests_.begin()));
    const index_t target = resident_groups(request) - layout_.unit;  // room for the others
    if (waiting->leaving_to == target) waiting->leaving_to = -1;
    follow_copies(*waiting, stream);
    using Start = detail::TierMover::Start;
    if (mover_.start(request, waiting->length, target, stream, stream, /*waits=*/true) !=
        Start::done) {
      waiting->leaving_to = -1;
    }
  }
  if (!mover_.is_any_leaving()) return false;
  settle_moves(stream, /*wait=*/true);
  // A request whose group left now reads a selection.
  for (ScheduledItem& item : scheduled_) {
    item.selects = item.selects || (!item.is_dense && !is_resident(item.request));
  }
  return !mover_.is_any_leaving();
}

/// An item that reads everything finds its offloaded layers in staging, which is filled from the
/// host tier: rows that are only in slots go there first.
inline void KVPool::stage(const ScheduledItem& item, index_t& staged_pages, StreamView stream) {
  const RequestId id = item.request;
  if (item.selects || is_resident(id)) return;
  const index_t durable = book_.tables.durable(id);
  follow_copies(stream);
  for (index_t g = resident_groups(id); durable < item.first && g < layout_.groups; ++g) {
    mover_.copy_rows(id, g, mover_.slots(id, g), mover_.host(id, g), durable, item.first, stream);
  }
  book_.tables.set_durable(id, item.first);
  backend_.forget_slots({.pool = view(), .request = id, .first = item.first}, stream);
  const index_t pages = ceil_div(item.first + item.rows, plan_.page_rows);
  book_.show_staging(id, staged_pages, pages);
  staged_pages += pages;
}

/// Rows that were staged have gone to the host tier; the others follow ScatterRowsArgs' rule.
inline void KVPool::advance(const Batch& batch) {
  for (const ScheduledItem& item : batch.items) {
    Request& r = at(item.request);
    r.length = item.first + item.rows;
    r.is_cold = !item.selects;  // the slot map of a resident request is kept up to date
    if (is_resident(item.request)) continue;
    if (!item.selects) {
      book_.tables.set_durable(item.request, r.length);
    } else if (is_write_due(layout_.run, item.request, book_.tables.durable(item.request), r.length,
                            plan_.write_batch)) {
      book_.tables.follow_durable(item.request, r.length);
    }
  }
  refresh_needs();
}

}  // namespace spectx
