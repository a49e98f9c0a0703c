// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bodies of PrefetchPipeline that make a step; include spectx/prefetch_pipeline.hpp.
#include "spectx/prefetch_pipeline.hpp"

namespace spectx {

inline PrefetchPipeline::PrefetchPipeline(Backend& backend, KVPool& pool,
                                          const PipelineConfig& config)
    : backend_(backend),
      pool_(pool),
      config_(config),
      copy_stream_(backend.make_stream({.high_priority = true})),
      warm_stream_(backend.make_stream()),
      move_stream_(backend.make_stream()),
      order_(backend.make_event()),
      copies_(backend.make_event()),
      warmed_(backend.make_event()),
      lists_memory_(pool.memories().device, pool.layout().step_list_bytes()),
      meter_(backend, pool),
      background_(backend, pool.memories().host, meter_.trace()) {
  expects(config.copy_blocks >= 0, "PrefetchPipeline: copy_blocks must not be negative");
  if (config.copy_blocks == 0) config_.copy_blocks = 8;
  point_lists();
  meter_.clear(copy_stream_);
  if (!pool.plan().has_host_tier()) return;
  const PoolLayout& layout = pool.layout();
  for (index_t g = 0; g < layout.groups; ++g) group_events_.push_back(backend.make_event());
  if (layout.lead_layers > 0) lead_event_.emplace(backend.make_event());
  for (int set = 0; set < 2; ++set) staging_events_.push_back(backend.make_event());
  for (index_t r = 0; r < pool.plan().max_requests; ++r) {
    warm_events_.push_back(backend.make_event());
  }
  // A stream's first operation may allocate: here, not in a move or a warm that has begun.
  for (const StreamView stream : {StreamView(warm_stream_), StreamView(move_stream_)}) {
    backend.fill(warm_batch_, 0, 1, stream);
    backend.synchronize(stream);
  }
}

inline void PrefetchPipeline::point_lists() {
  const PoolLayout& layout = pool_.layout();
  detail::Carver carver(lists_memory_.data());
  for (StepLists* lists : {&lists_, &warm_lists_}) {
    lists->slot_of_rank = carver.take<std::int32_t>(layout.rank_table_bytes);
    lists->miss_ids = carver.take<std::int32_t>(layout.rank_table_bytes);
    lists->miss_slots = carver.take<std::int32_t>(layout.rank_table_bytes);
    lists->max_budget = pool_.plan().selection.largest_budget();
  }
  warm_lists_.miss_counts = carver.take<std::int32_t>(layout.head_count_bytes);
  warm_lists_.hit_counts = carver.take<std::int32_t>(layout.head_count_bytes);
  meter_.point(carver.take<std::byte>(layout.figure_bytes()), lists_);
  if (pool_.plan().has_host_tier()) warm_batch_ = carver.take<std::byte>(layout.batch_bytes);
}

inline PrefetchPipeline::~PrefetchPipeline() {
  try {
    wait_ready();
  } catch (...) {
    // The device is lost: nothing runs that could use what is freed now.
  }
  pool_.copies_.reset();
  for (KVPool::Request& request : pool_.requests_) request.warmed.reset();
}

inline void PrefetchPipeline::begin_step(const Batch& batch, const Selection& selection,
                                         StreamView stream) {
  const TraceSpan span(backend_.trace(), "PrefetchPipeline::begin_step");
  expects(mode_ == Mode::none, "PrefetchPipeline::begin_step: the step before was not ended");
  expects(
      !batch.needs_selection || selection.max_budget == pool_.plan().selection.largest_budget(),
      "PrefetchPipeline::begin_step: the selection's max_budget must be the plan's largest budget");
  const bool is_captured = backend_.is_capturing(stream);
  expects(!is_captured || can_replay(batch),
          "PrefetchPipeline::begin_step: this batch cannot be captured: see can_replay");
  batch_ = batch;
  selection_ = selection;
  meter_.note_launch();
  const bool has_transfers = pool_.plan().has_host_tier() && !batch.items.empty();
  if (has_transfers) meter_.begin_step(stream);
  if (has_transfers && batch.needs_selection) update_slots(batch_, selection_, lists_, stream);
  mode_ = is_captured ? Mode::capture : Mode::step;
  is_staging_ = false;
  entered_layer_ = -1;
  appended_layers_ = 0;
  if (has_transfers) start_transfers(stream);
}

inline void PrefetchPipeline::start_transfers(StreamView stream) {
  const index_t groups = pool_.layout().groups;
  // A replay may find any group offloaded.
  first_group_ = mode_ == Mode::capture ? 0 : first_offloaded(batch_);
  for (const ScheduledItem& item : batch_.items) {
    is_staging_ = is_staging_ || (!item.selects && !pool_.is_resident(item.request));
  }
  order(copy_stream_, stream);
  meter_.begin_transfers(stream);
  for (index_t g = first_group_; batch_.needs_selection && g < groups; ++g) gather(g);
  if (is_staging_) load_staging(first_group_ * pool_.plan().group_layers);
  if (is_staging_) load_staging(first_group_ * pool_.plan().group_layers + 1);
}

/// What of the batch's selection is not on the device, and where it goes.
inline void PrefetchPipeline::update_slots(const Batch& batch, const Selection& selection,
                                           const StepLists& lists, StreamView stream) {
  backend_.update_slots(
      {.batch = &batch, .selection = selection, .pool = pool_.view(), .lists = lists}, stream);
}

/// The same, of one group, into its slots.
inline void PrefetchPipeline::gather(const Batch& batch, const StepLists& lists, index_t group,
                                     int blocks, StreamView stream) {
  backend_.gather_rows(
      {.batch = &batch, .lists = lists, .pool = pool_.view(), .group = group, .max_blocks = blocks},
      stream);
}

inline void PrefetchPipeline::gather(index_t group) {
  const TraceSpan span(backend_.trace(), "PrefetchPipeline::gather", TraceLane::copy);
  GatherRowsArgs rows{.batch = &batch_,
                      .lists = lists_,
                      .pool = pool_.view(),
                      .group = group,
                      .max_blocks = config_.copy_blocks};
  meter_.begin_transfer(group, copy_stream_);
  if (const index_t lead = pool_.layout().lead_layers; group == 0 && lead > 0) {
    rows.num_layers = lead;
    backend_.gather_rows(rows, copy_stream_);
    meter_.end_lead(copy_stream_);
    backend_.record(*lead_event_, copy_stream_);
    rows.first_layer = std::exchange(rows.num_layers, 0);
  }
  backend_.gather_rows(rows, copy_stream_);
  meter_.end_transfer(group, copy_stream_);
  backend_.record(group_events_[static_cast<std::size_t>(group)], copy_stream_);
}

/// Makes `stream` wait for what the layer reads, and turns the staging sets by one layer.
inline void PrefetchPipeline::enter(index_t cached_layer, StreamView stream) {
  const index_t group = cached_layer / pool_.plan().group_layers;
  const index_t lead = pool_.layout().lead_layers;
  if (batch_.needs_selection && lead > 0 && cached_layer == 0) {
    meter_.begin_lead_wait(stream);
    backend_.wait(stream, *lead_event_);
    meter_.end_lead_wait(stream);
  } else if (batch_.needs_selection && (cached_layer % pool_.plan().group_layers == 0 ||
                                        (lead > 0 && cached_layer == lead))) {
    meter_.begin_wait(group, stream);
    backend_.wait(stream, group_events_[static_cast<std::size_t>(group)]);
    meter_.end_wait(group, stream);
  }
  if (!is_staging_) return;
  if (entered_layer_ >= 0) {  // that layer has been read: its set takes the layer after this one
    order(copy_stream_, stream);
    store_staging(entered_layer_);
    load_staging(cached_layer + 1);
  }
  backend_.wait(stream, staging_events_[static_cast<std::size_t>(cached_layer % 2)]);
  entered_layer_ = cached_layer;
}

inline KVView PrefetchPipeline::append(index_t layer, TensorView k, TensorView v,
                                       StreamView stream) {
  expects(mode_ == Mode::step || mode_ == Mode::capture,
          "PrefetchPipeline::append: no step has begun");
  const ModelShape& shape = pool_.shape();
  expects(k.rank == 3 && k.shape[0] == batch_.num_rows && k.shape[1] == shape.kv_heads &&
              k.shape[2] == shape.k_dim && k.strides[2] == 1,
          "PrefetchPipeline::append: k must be [rows, kv_heads, k_dim], dense in its rows");
  expects(v.rank == 3 && v.shape[0] == batch_.num_rows && v.shape[1] == shape.kv_heads &&
              v.shape[2] == shape.v_dim && v.strides[2] == 1,
          "PrefetchPipeline::append: v must be [rows, kv_heads, v_dim], dense in its rows");
  KVView rows = pool_.layer_view(layer);
  expects(pool_.cached_layer(layer) == appended_layers_,
          "PrefetchPipeline::append: layers come once each, in ascending order");
  ++appended_layers_;
  if (pool_.plan().has_host_tier() && rows.group >= first_group_ && !batch_.items.empty()) {
    enter(pool_.cached_layer(layer), stream);
  }
  if (batch_.needs_selection) {
    rows.counts = selection_.counts.data;
    rows.ids = selection_.ids.data;
    rows.slot_of_rank = lists_.slot_of_rank;
    rows.max_budget = selection_.max_budget;
  }
  backend_.append_rows({.k = k,
                        .v = v,
                        .batch = &batch_,
                        .to = rows,
                        .slot_of_token = pool_.view().slot_of_token,
                        .max_length = pool_.plan().max_length},
                       stream);
  return rows;
}

inline void PrefetchPipeline::end_step(StreamView stream) {
  expects(mode_ != Mode::none, "PrefetchPipeline::end_step: no step has begun");
  const Mode mode = std::exchange(mode_, Mode::none);
  if (batch_.items.empty()) return;
  const bool has_host_tier = pool_.plan().has_host_tier();
  const bool is_replayed = mode == Mode::replay;
  // The next schedule follows the copy stream only where there is a host tier.
  const StreamView last = has_host_tier && !is_replayed ? StreamView(copy_stream_) : stream;
  if (!is_replayed) meter_.collect(batch_, selection_, stream);  // the selection may go after this
  if (has_host_tier && !is_replayed) write_through(stream);
  if (mode == Mode::capture) return;  // nothing has run

  meter_.end_step(batch_, last);
  if (has_host_tier) {
    backend_.record(copies_, last);
    pool_.copies_ = copies_;
    if (is_replayed) backend_.wait(copy_stream_, copies_);
  }
  pool_.advance(batch_);
}

/// The slots of its rows are forgotten when the request's next ones are looked up.
inline void PrefetchPipeline::abandon_step(StreamView stream) {
  const Mode mode = std::exchange(mode_, Mode::none);
  if (mode == Mode::none || mode == Mode::capture || batch_.items.empty()) return;
  if (!pool_.plan().has_host_tier()) return;
  order(copy_stream_, stream);
  backend_.record(copies_, copy_stream_);
  pool_.copies_ = copies_;
}

inline void PrefetchPipeline::write_through(StreamView stream) {
  const TraceSpan span(backend_.trace(), "PrefetchPipeline::write_through", TraceLane::copy);
  meter_.end_compute(stream);
  order(copy_stream_, stream);
  if (entered_layer_ >= 0) store_staging(entered_layer_);
  if (batch_.needs_selection && first_group_ < pool_.layout().groups) {
    meter_.begin_write(copy_stream_);
    backend_.scatter_rows(
        {.batch = &batch_, .pool = pool_.view(), .write_batch = pool_.plan().write_batch},
        copy_stream_);
    meter_.end_write(copy_stream_);
  }
}

}  // namespace spectx
