// SPDX-License-Identifier: Apache-2.0
#pragma once

// What PrefetchPipeline does between steps; include spectx/prefetch_pipeline.hpp.
#include "spectx/prefetch_pipeline.hpp"

namespace spectx {

inline void PrefetchPipeline::apply(const Placement& placement, StreamView stream) {
  expects(mode_ == Mode::none, "PrefetchPipeline::apply: a step has begun");
  expects(!backend_.is_capturing(stream), "PrefetchPipeline::apply: cannot be captured");
  expects(placement.needs.size() == placement.resident_groups.size(),
          "PrefetchPipeline::apply: the placement needs one entry a request");
  pool_.settle_moves(stream, /*wait=*/false);
  bool is_any_started = false;
  for (std::size_t i = 0; i < placement.needs.size(); ++i) {
    const RequestId request = placement.needs[i].request;
    const index_t target = placement.resident_groups[i];
    if (!pool_.wants_move(request, target)) continue;
    if (!is_any_started) {
      order(move_stream_, stream);
      background_.begin("PrefetchPipeline::move", TraceLane::move, move_stream_);
    }
    is_any_started = pool_.start_move(request, target, stream, move_stream_) || is_any_started;
  }
  if (is_any_started) background_.end(move_stream_);
}

inline void PrefetchPipeline::warm(const Batch& batch, const Selection& selection,
                                   StreamView stream) {
  expects(mode_ == Mode::none, "PrefetchPipeline::warm: a step has begun");
  expects(!backend_.is_capturing(stream), "PrefetchPipeline::warm: cannot be captured");
  if (!pool_.plan().has_host_tier() || !batch.needs_selection) return;
  expects(selection.max_budget == pool_.plan().selection.largest_budget(),
          "PrefetchPipeline::warm: the selection's max_budget must be the plan's largest budget");
  const TraceSpan span(backend_.trace(), "PrefetchPipeline::warm", TraceLane::copy);
  backend_.wait(stream, warmed_);
  // The next batch takes the arrays of this one, whose rows are still on their way.
  const Batch own = pool_.writer_.copy_to(warm_batch_, stream);
  update_slots(own, selection, warm_lists_, stream);
  order(warm_stream_, stream);
  background_.begin("PrefetchPipeline::warm", TraceLane::warm, warm_stream_);
  for (index_t g = first_offloaded(own); g < pool_.layout().groups; ++g) {
    gather(own, warm_lists_, g, std::max(1, config_.copy_blocks / 4), warm_stream_);
  }
  background_.end(warm_stream_);
  for (const ScheduledItem& item : own.items) {
    if (!item.selects || pool_.is_resident(item.request)) continue;
    Event& event = warm_events_[static_cast<std::size_t>(item.request.value)];
    backend_.record(event, warm_stream_);
    KVPool::Request& request = pool_.at(item.request);
    request.warmed = event;
    request.is_cold = false;
  }
  backend_.record(warmed_, warm_stream_);
}

}  // namespace spectx
