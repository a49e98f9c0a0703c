// SPDX-License-Identifier: Apache-2.0
#pragma once

// What PrefetchPipeline has for captured steps; include spectx/prefetch_pipeline.hpp.
#include "spectx/prefetch_pipeline.hpp"

namespace spectx {

inline void PrefetchPipeline::join(StreamView stream) {
  if (pool_.plan().has_host_tier()) order(stream, copy_stream_);
}

inline bool PrefetchPipeline::can_replay(const Batch& batch) const {
  const StepShape shape = batch.shape();
  const bool has_equal_items = shape.rows == shape.items * batch.max_rows_per_item;
  // Else the place of an item's leads would depend on which of the others select.
  const bool has_equal_leads = shape.leads == shape.items || shape.leads == shape.rows;
  const auto is_readable = [&](const ScheduledItem& item) {
    return item.selects || pool_.is_resident(item.request);
  };
  return !batch.items.empty() && has_equal_items && has_equal_leads &&
         std::all_of(batch.items.begin(), batch.items.end(), is_readable);
}

inline void PrefetchPipeline::begin_replay(const Batch& batch, const StepShape& captured) {
  expects(mode_ == Mode::none, "PrefetchPipeline::begin_replay: the step before was not ended");
  expects(batch.shape() == captured,
          "PrefetchPipeline::begin_replay: the graph was captured for a batch of another shape");
  expects(can_replay(batch),
          "PrefetchPipeline::begin_replay: this batch cannot be replayed: see can_replay");
  batch_ = batch;
  mode_ = Mode::replay;
  meter_.note_launch();
}

}  // namespace spectx
