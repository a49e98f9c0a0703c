// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "spectx/stream.hpp"

namespace spectx::cu {

/// A host's own stream, of the backend's device, for any call that takes a StreamView. Not the
/// legacy stream: it would wait for every other. The host destroys it, after the backend.
inline StreamView stream_view(cudaStream_t stream) noexcept { return {stream}; }
inline cudaStream_t cuda_stream(StreamView stream) noexcept {
  return static_cast<cudaStream_t>(stream.handle);
}

/// A host's own event; without timing it costs least.
inline EventView event_view(cudaEvent_t event) noexcept { return {event}; }
inline cudaEvent_t cuda_event(EventView event) noexcept {
  return static_cast<cudaEvent_t>(event.handle);
}

}  // namespace spectx::cu
