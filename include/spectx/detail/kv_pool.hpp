// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bodies of KVPool but for batches; include spectx/kv_pool.hpp.
#include "spectx/kv_pool.hpp"

namespace spectx {

inline KVPool::KVPool(Backend& backend, const ModelShape& shape, const PoolPlan& plan,
                      Memories memories, PageLender* lender)
    : backend_(backend),
      memories_(memories),
      shape_(checked(shape)),
      plan_(checked(plan)),
      layout_(shape_, plan_),
      book_(backend, shape_, plan_, layout_, memories, lender),
      mover_(backend, book_, plan_, layout_),
      writer_(backend, plan_, layout_, memories.device),
      requests_(static_cast<std::size_t>(plan_.max_requests)) {
  expects((lender != nullptr) == plan.lends(), "KVPool: a plan with lent_pages needs a lender");
  for (index_t layer = 0; layer < shape_.layers; ++layer) {
    const bool is_cached = shape_.kind(layer) == AttentionKind::full;
    cached_layer_.push_back(is_cached ? num_cached_layers_++ : -1);
  }
  needs_.reserve(requests_.size());
  scheduled_.reserve(requests_.size());
  const Stream setup = backend_.make_stream();
  book_.tables.clear(setup);
  backend_.synchronize(setup);
}

inline RequestId KVPool::open(index_t final_length) {
  expects(final_length > 0 && final_length <= plan_.max_length,
          "KVPool::open: final_length must be in [1, max_length]");
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i].is_open) continue;
    requests_[i] = Request{};
    requests_[i].is_open = true;
    requests_[i].final_length = final_length;
    refresh_needs();
    return id(i);
  }
  throw InvalidArgument("KVPool::open: max_requests requests are open");
}

inline void KVPool::close(RequestId request, StreamView stream) noexcept {
  if (request.value < 0 || request.value >= plan_.max_requests) return;
  Request& r = requests_[static_cast<std::size_t>(request.value)];
  if (!r.is_open) return;
  try {
    follow_copies(r, stream);
    mover_.follow(request, stream);
    if (plan_.has_host_tier()) {
      backend_.forget_slots({.pool = view(), .request = request, .first = 0}, stream);
    }
  } catch (...) {
    // The device is lost: nothing runs that could use what is freed now.
  }
  mover_.drop(request, stream);
  book_.release(request, !r.is_parked, stream);
  r = Request{};
  refresh_needs();
}

inline void KVPool::rewind(RequestId request, index_t length, StreamView stream) {
  Request& r = at(request);
  expects(length >= 0 && length <= r.length,
          "KVPool::rewind: length must be in [0, the request's length]");
  expects(!r.is_parked, "KVPool::rewind: the request is parked");
  follow_copies(r, stream);
  mover_.follow(request, stream);
  mover_.drop(request, stream);
  if (plan_.has_host_tier()) {
    backend_.forget_slots({.pool = view(), .request = request, .first = length}, stream);
  }
  book_.shrink(request, length, stream);
  book_.tables.set_durable(request, std::min(book_.tables.durable(request), length));
  r.length = length;
  r.has_returned = r.has_returned && length > 0;
  refresh_needs();
}

inline RequestState KVPool::state(RequestId request) const {
  const Request& r = at(request);
  if (r.is_parked) return RequestState::parked;
  if (is_resident(request)) return RequestState::ready;
  if (is_warming(r)) return RequestState::warming;
  return r.is_cold ? RequestState::prefill : RequestState::ready;
}

inline PoolStats KVPool::stats() const {
  return {
      .device_used = book_.arena.used_bytes(),
      .device_total = book_.arena.allocated_bytes() + layout_.staging_bytes + layout_.table_bytes(),
      .lent = book_.tokens.lent_bytes(),
      .host_used = book_.host.used_bytes(),
      .host_total = book_.host.allocated_bytes(),
      .stalled_batches = stalled_batches_,
      .host_waits = book_.host.waits()};
}

inline KVView KVPool::layer_view(index_t layer) const {
  const index_t cached = cached_layer(layer);
  expects(cached >= 0, "KVPool::layer_view: the layer has no full attention");
  const index_t group = cached / plan_.group_layers;
  return {.table = view().pages + group * layout_.page_table_columns,
          .table_stride = layout_.groups * layout_.page_table_columns,
          .staging = plan_.has_host_tier()
                         ? book_.tables.staging_table() + cached % 2 * layout_.token_pages
                         : nullptr,
          .staging_stride = 2 * layout_.token_pages,
          .page_rows = plan_.page_rows,
          .layer_offset = (cached - group * plan_.group_layers) * layout_.strides.layer,
          .head_stride = layout_.strides.head,
          .row_stride = layout_.strides.row,
          .v_offset = layout_.strides.v,
          .dtype = shape_.dtype,
          .kv_heads = shape_.kv_heads,
          .k_dim = shape_.k_dim,
          .v_dim = shape_.v_dim,
          .resident_groups = view().resident_groups,
          .group = group};
}

inline KVView KVPool::key_view() const {
  expects(plan_.head_kv_heads > 0, "KVPool::key_view: the plan has no retrieval head");
  const index_t row_bytes = plan_.head_k_dim * dtype_bytes(shape_.dtype);
  return {.table = book_.tables.key_table(),
          .table_stride = layout_.key_pages,
          .page_rows = layout_.key_page_rows,
          .head_stride = layout_.key_page_rows * row_bytes,
          .row_stride = row_bytes,
          .dtype = shape_.dtype,
          .kv_heads = plan_.head_kv_heads,
          .k_dim = plan_.head_k_dim};
}

inline void KVPool::refresh_needs() {
  needs_.clear();
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    const Request& r = requests_[i];
    if (!r.is_open) continue;
    needs_.push_back({.request = id(i),
                      .length = r.length,
                      .final_length = r.final_length,
                      .resident_groups = book_.tables.resident_groups(id(i)),
                      .moving_to = mover_.target(id(i)),
                      .is_parked = r.is_parked});
  }
}

inline void KVPool::settle_moves(StreamView stream, bool wait) {
  bool is_any = false;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (!requests_[i].is_open || !mover_.is_moving(id(i))) continue;
    is_any = true;
    Request& r = requests_[i];
    follow_copies(r, stream);
    const bool is_coming = mover_.target(id(i)) > book_.tables.resident_groups(id(i));
    if (mover_.settle(id(i), r.length, stream, wait)) {
      r.has_returned = r.has_returned || (is_coming && r.length > 0);
    }
  }
  if (is_any) refresh_needs();
}

/// Whether the placement asks for a move that may start now.
inline bool KVPool::wants_move(RequestId request, index_t target) {
  Request& r = at(request);
  r.leaving_to = -1;
  if (r.is_parked || mover_.is_moving(request)) return false;
  if (state(request) == RequestState::warming) return false;  // its page tables are read
  expects(target >= 0 && target <= layout_.groups,
          "PrefetchPipeline::apply: resident_groups must be in [0, groups]");
  if (target == book_.tables.resident_groups(request)) return false;
  expects(plan_.has_host_tier(), "PrefetchPipeline::apply: the pool has no host tier");
  expects(target % layout_.unit == 0,
          "PrefetchPipeline::apply: the groups of a request leave and return together");
  return true;
}

/// Whether it has started: there may be no room.
inline bool KVPool::start_move(RequestId request, index_t target, StreamView stream,
                               StreamView move_stream) {
  Request& r = at(request);
  follow_copies(move_stream);  // the write-through of rows that come back
  using Start = detail::TierMover::Start;
  const Start started = mover_.start(request, r.length, target, stream, move_stream);
  if (started == Start::host_grows) r.leaving_to = target;
  if (started != Start::done) return false;
  refresh_needs();
  if (r.length == 0) settle_moves(stream, /*wait=*/true);
  return true;
}

inline void KVPool::park(RequestId request, StreamView stream) {
  Request& r = at(request);
  if (!plan_.has_host_tier())
    throw Unsupported("PrefetchPipeline::park: the pool has no host tier");
  expects(!r.is_parked, "PrefetchPipeline::park: the request is parked already");
  follow_copies(r, stream);
  mover_.park(request, r.length, stream);
  r.is_parked = true;
  r.leaving_to = -1;
  refresh_needs();
}

inline void KVPool::resume(RequestId request, StreamView stream) {
  Request& r = at(request);
  expects(r.is_parked, "PrefetchPipeline::resume: the request is not parked");
  book_.arena.reserve(layout_.groups * layout_.slot_pages);
  book_.finish_resume(request);
  book_.tables.upload(stream);
  r.is_parked = false;
  r.is_cold = true;
  refresh_needs();
}

}  // namespace spectx
