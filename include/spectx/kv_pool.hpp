// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "spectx/detail/batch_writer.hpp"
#include "spectx/detail/check_pool_plan.hpp"
#include "spectx/detail/page_book.hpp"
#include "spectx/detail/tier_mover.hpp"
#include "spectx/memory_planner.hpp"

namespace spectx {

enum class RequestState : std::uint8_t {
  prefill,  // rows have come since its last selection, which the host has: warm it
  warming,  // the rows of its next selection are on their way
  ready,    // decodes
  parked,   // only its head keys are on the device
};

/// What a pool holds now, bytes.
struct PoolStats {
  index_t device_used = 0;      // arena pages that are held
  index_t device_total = 0;     // arena, staging, tables and batch arrays
  index_t lent = 0;             // pages of a host engine, beside those
  index_t host_used = 0;        // host pages that are held
  index_t host_total = 0;       // what the host tier has grown to
  index_t stalled_batches = 0;  // schedules that waited for groups to leave
  index_t host_waits = 0;       // calls that waited for the host tier to grow
};

/// Owns every row of both tiers and every table about them: page tables, slot map, watermarks,
/// lengths, placement. Rows are written after RoPE. Not thread-safe; has no stream of its own.
class KVPool {
 public:
  /// Allocates the arena and the tables; the host tier grows as rows need it, where its memory is
  /// slow to get ahead of need, on a thread of the pool's own. Blocks. Throws OutOfMemory,
  /// InvalidArgument for a plan that does not fit the shape. With a `lender`, which a plan with
  /// lent_pages needs, the pages of resident groups are its own; close every request before the
  /// pool goes, so that it gets them back.
  KVPool(Backend& backend, const ModelShape& shape, const PoolPlan& plan, Memories memories,
         PageLender* lender = nullptr);
  KVPool(KVPool&&) = delete;

  /// Reserves pages for the rows of `items` and fills the device arrays. Between steps; a step's
  /// rows run out of memory here or nowhere (OutOfMemory: nothing changed). Host work and one copy
  /// on `stream`. Lengths advance in PrefetchPipeline::end_step: a batch never ended has no trace.
  const Batch& schedule(std::span<const BatchItem> items, StreamView stream);

  /// A request that will hold at most `final_length` tokens, its output included. Throws
  /// InvalidArgument if max_requests are open or final_length is not in [1, max_length].
  RequestId open(index_t final_length);
  /// Frees what the request holds; nothing happens if it is not open. Async on `stream`.
  void close(RequestId request, StreamView stream) noexcept;
  /// Forgets all rows from `length` on. Async on `stream`.
  void rewind(RequestId request, index_t length, StreamView stream);

  index_t length(RequestId request) const { return at(request).length; }
  index_t resident_groups(RequestId request) const {
    static_cast<void>(at(request));  // throws unless it is open
    return book_.tables.resident_groups(request);
  }
  RequestState state(RequestId request) const;
  /// Whether an item reads rows that may have been in the host tier: its request has groups there,
  /// or had.
  bool reads_returned(const ScheduledItem& item) const {
    return item.first > 0 && (at(item.request).has_returned || !is_resident(item.request));
  }
  /// One entry an open request; valid until the next call that changes one.
  std::span<const RequestNeed> needs() const noexcept { return needs_; }
  PoolStats stats() const;
  Memories memories() const noexcept { return memories_; }
  const ModelShape& shape() const noexcept { return shape_; }
  const PoolPlan& plan() const noexcept { return plan_; }
  const PoolLayout& layout() const noexcept { return layout_; }

  /// Device tables, for a pipeline; fixed for the pool's life.
  const KVPoolView& view() const noexcept { return book_.tables.view(); }
  /// Place of a layer among those with full attention; -1 where it has none.
  index_t cached_layer(index_t layer) const {
    expects(layer >= 0 && layer < shape_.layers, "KVPool: no such layer");
    return cached_layer_[static_cast<std::size_t>(layer)];
  }
  /// Where the rows of a layer with full attention are, all tokens.
  KVView layer_view(index_t layer) const;
  /// Where the retrieval head's keys are. Throws InvalidArgument if the plan has no head.
  KVView key_view() const;

 private:
  friend class PrefetchPipeline;

  struct Request {
    bool is_open = false;
    bool is_cold = false;  // rows have come since its last selection: not all have slots
    bool is_parked = false;
    bool has_returned = false;  // with a group that came back, rows of the host tier
    index_t length = 0;
    index_t final_length = 0;
    index_t leaving_to = -1;  // resident groups of a move that waits for the host tier to grow
    std::optional<EventView> warmed;  // of the transfers that warm it
  };

  static const ModelShape& checked(const ModelShape& shape) {
    detail::check_dimensions(shape, {});
    return shape;
  }
  const PoolPlan& checked(const PoolPlan& plan) const {
    detail::check_pool_plan(shape_, plan);
    return plan;
  }
  const Request& at(RequestId request) const {
    expects(request.value >= 0 && request.value < plan_.max_requests &&
                requests_[static_cast<std::size_t>(request.value)].is_open,
            "KVPool: no such request is open");
    return requests_[static_cast<std::size_t>(request.value)];
  }
  Request& at(RequestId request) { return const_cast<Request&>(std::as_const(*this).at(request)); }
  bool is_resident(RequestId request) const {
    return book_.tables.resident_groups(request) == layout_.groups;
  }
  bool is_warming(const Request& request) const {
    return request.warmed && !backend_.is_done(*request.warmed);
  }
  RequestId id(std::size_t index) const { return {static_cast<std::int32_t>(index)}; }

  ScheduledItem check_item(const BatchItem& item) const;
  void reserve(StreamView stream);
  bool take_tokens(StreamView stream) noexcept;
  bool let_groups_leave(index_t pages, bool is_refused, StreamView stream);
  void stage(const ScheduledItem& item, index_t& staged_pages, StreamView stream);
  void refresh_needs();
  /// Later work on `stream` follows the transfers of the steps so far.
  void follow_copies(StreamView stream) const {
    if (copies_) backend_.wait(stream, *copies_);
  }
  /// The same, and of those that warm the request.
  void follow_copies(const Request& request, StreamView stream) const {
    follow_copies(stream);
    if (request.warmed) backend_.wait(stream, *request.warmed);
  }

  // For PrefetchPipeline.
  void advance(const Batch& batch);
  void settle_moves(StreamView stream, bool wait);
  bool wants_move(RequestId request, index_t target);
  bool start_move(RequestId request, index_t target, StreamView stream, StreamView move_stream);
  void park(RequestId request, StreamView stream);
  void resume(RequestId request, StreamView stream);

  Backend& backend_;
  Memories memories_;
  ModelShape shape_;
  PoolPlan plan_;
  PoolLayout layout_;
  detail::PageBook book_;
  detail::TierMover mover_;
  detail::BatchWriter writer_;
  std::vector<Request> requests_;
  std::vector<index_t> cached_layer_;  // [layers]
  index_t num_cached_layers_ = 0;
  std::vector<RequestNeed> needs_;
  std::vector<ScheduledItem> scheduled_;
  std::optional<EventView> copies_;  // after the transfers of the last step
  index_t stalled_batches_ = 0;
};

}  // namespace spectx

#include "spectx/detail/kv_pool.hpp"
#include "spectx/detail/kv_pool_batches.hpp"
