// SPDX-License-Identifier: Apache-2.0
#pragma once

// What PrefetchPipeline does for items that read everything of offloaded groups; include
// spectx/prefetch_pipeline.hpp.
#include "spectx/prefetch_pipeline.hpp"

namespace spectx {

/// Earlier rows of items that read everything, from the host tier into the layer's staging set.
inline void PrefetchPipeline::load_staging(index_t cached_layer) {
  if (cached_layer >= pool_.view().layers) return;
  const TraceSpan span(backend_.trace(), "PrefetchPipeline::stage", TraceLane::copy);
  const detail::TierMover& mover = pool_.mover_;
  const index_t group = cached_layer / pool_.plan().group_layers;
  for (const ScheduledItem& item : batch_.items) {
    if (item.selects || !is_offloaded(item, group)) continue;
    mover.copy_rows(item.request, group, mover.host(item.request, group),
                    mover.staging(item.request, cached_layer % 2), 0, item.first, copy_stream_,
                    cached_layer % pool_.plan().group_layers);
  }
  backend_.record(staging_events_[static_cast<std::size_t>(cached_layer % 2)], copy_stream_);
}

/// This step's rows of the same items, from the staging set to the host tier.
inline void PrefetchPipeline::store_staging(index_t cached_layer) {
  const detail::TierMover& mover = pool_.mover_;
  const index_t group = cached_layer / pool_.plan().group_layers;
  for (const ScheduledItem& item : batch_.items) {
    if (item.selects || !is_offloaded(item, group)) continue;
    mover.copy_rows(item.request, group, mover.staging(item.request, cached_layer % 2),
                    mover.host(item.request, group), item.first, item.first + item.rows,
                    copy_stream_, cached_layer % pool_.plan().group_layers);
  }
}

}  // namespace spectx
