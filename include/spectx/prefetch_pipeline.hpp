// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/detail/background_spans.hpp"
#include "spectx/detail/step_meter.hpp"
#include "spectx/kv_pool.hpp"

namespace spectx {

struct PipelineConfig {
  /// Grid of the gather kernel: more blocks slow the matrix products beside them. 0: 8 of them. A
  /// quarter of them bring what a request is warmed with, beside the steps of others.
  int copy_blocks = 0;
};

/// Moves rows between the tiers: before each layer reads them, what the selection needs and the
/// device does not have; after each step, what is new. Owns the copy stream, the events and the
/// step lists; the only writer of the slot map. Not thread-safe.
class PrefetchPipeline {
 public:
  /// Allocates from the pool's memories. Throws OutOfMemory.
  PrefetchPipeline(Backend& backend, KVPool& pool, const PipelineConfig& config);
  PrefetchPipeline(PrefetchPipeline&&) = delete;
  /// Blocks until every transfer is done.
  ~PrefetchPipeline();

  /// Compares the selection with what is on the device and starts the transfers, group by group.
  /// Both arguments stay valid until end_step. Async: reads after `stream`, runs on the copy
  /// stream.
  void begin_step(const Batch& batch, const Selection& selection, StreamView stream);

  /// Writes this step's rows of `layer`, makes `stream` wait for the layer's group and says where
  /// every row is. k [rows, kv_heads, k_dim] after RoPE, v [rows, kv_heads, v_dim]. Once a layer
  /// with full attention, in ascending order. The view is valid until end_step.
  KVView append(index_t layer, TensorView k, TensorView v, StreamView stream);

  /// Starts the write-through of new rows; the requests' lengths advance.
  void end_step(StreamView stream);

  /// Gives up a step that has begun, as a host does that caught an exception in it: the lengths
  /// stay as they are, and the next batch may hold the same rows again. A capture is to be ended
  /// first. Nothing happens if no step has begun.
  void abandon_step(StreamView stream);

  /// Makes `stream` wait for the transfers of the step: the last call of a step that is captured.
  void join(StreamView stream);

  /// Whether a step of the batch can be captured in a graph, and replayed: every item adds as many
  /// rows, and none reads everything of a request with offloaded groups.
  bool can_replay(const Batch& batch) const;

  /// Before the launch of a graph that was captured for a batch of the shape `captured`; end_step
  /// on the same stream follows. Host work alone. Throws InvalidArgument (nothing changed) for a
  /// batch of another shape or one that cannot be replayed.
  void begin_replay(const Batch& batch, const StepShape& captured);

  /// Starts the moves that the placement asks for and settles those that are done. Between steps,
  /// before `schedule`; returns at once. A move that has no room now is tried again by a later
  /// call.
  void apply(const Placement& placement, StreamView stream);

  /// Fetches what the step of `batch` will read, without running it. The requests are `warming`
  /// until the rows are there; steps of other requests go on meanwhile. Warms share their lists:
  /// `stream` waits for the warm before, so requests that come together take one batch, and others
  /// are warmed once those before are `ready`. Nothing happens to requests that are wholly on the
  /// device.
  void warm(const Batch& batch, const Selection& selection, StreamView stream);

  /// Sends a request's rows to the host tier and frees its device pages, all but its head keys.
  /// Throws OutOfMemory (host; nothing changed), Unsupported without a host tier.
  void park(RequestId request, StreamView stream) { pool_.park(request, stream); }
  /// Gives a parked request its slots back; warm it next. Throws OutOfMemory (device).
  void resume(RequestId request, StreamView stream) { pool_.resume(request, stream); }
  /// Blocks until every transfer so far is done.
  void wait_ready() {
    backend_.synchronize(copy_stream_);
    backend_.synchronize(warm_stream_);
    backend_.synchronize(move_stream_);
  }

  /// Of the last step whose figures have arrived; never waits. Those of the last four steps are
  /// kept: a host that is always further ahead of the device sees none.
  const StepReport& report() {
    background_.send();
    return meter_.report();
  }

 private:
  bool is_offloaded(const ScheduledItem& item, index_t group) const {
    return pool_.resident_groups(item.request) <= group;
  }
  /// The first group of which some item's rows are off the device.
  index_t first_offloaded(const Batch& batch) const {
    index_t first = pool_.layout().groups;
    for (const ScheduledItem& item : batch.items) {
      first = std::min<index_t>(first, pool_.resident_groups(item.request));
    }
    return first;
  }
  enum class Mode : std::uint8_t { none, step, capture, replay };

  void start_transfers(StreamView stream);
  void update_slots(const Batch& batch, const Selection& selection, const StepLists& lists,
                    StreamView stream);
  void gather(const Batch& batch, const StepLists& lists, index_t group, int blocks,
              StreamView stream);
  void gather(index_t group);
  void point_lists();
  void write_through(StreamView stream);
  void load_staging(index_t cached_layer);
  void store_staging(index_t cached_layer);
  void enter(index_t cached_layer, StreamView stream);
  void order(StreamView after, StreamView before) {
    backend_.record(order_, before);
    backend_.wait(after, order_);
  }

  Backend& backend_;
  KVPool& pool_;
  PipelineConfig config_;
  index_t first_group_ = 0;  // first group of which some item's rows are off the device
  Stream copy_stream_;
  Stream warm_stream_, move_stream_;  // what no step waits for
  Event order_;
  Event copies_;
  std::vector<Event> group_events_;    // [groups] the selected rows of this step are there
  std::optional<Event> lead_event_;    // those of PoolLayout::lead_layers
  std::vector<Event> staging_events_;  // [2] the staging set holds a layer's earlier rows
  std::vector<Event> warm_events_;     // [max_requests]
  Event warmed_;                       // after the last warm: its lists are free
  Buffer lists_memory_;
  StepLists lists_, warm_lists_;
  std::byte* warm_batch_ = nullptr;  // device arrays
  detail::StepMeter meter_;
  detail::BackgroundSpans background_;
  Batch batch_;
  Selection selection_;
  Mode mode_ = Mode::none;   // of the step that has begun
  bool is_staging_ = false;  // some item reads everything of offloaded layers
  index_t appended_layers_ = 0;
  index_t entered_layer_ = -1;  // cached layer whose rows were appended last
};

}  // namespace spectx

#include "spectx/detail/prefetch_pipeline.hpp"
#include "spectx/detail/prefetch_pipeline_between.hpp"
#include "spectx/detail/prefetch_pipeline_replay.hpp"
#include "spectx/detail/prefetch_pipeline_staging.hpp"
