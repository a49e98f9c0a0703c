// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/types.hpp"

namespace spectx {

/// The stream on whose behalf a span runs: one lane each in a trace. Spans of calls are of the
/// first two.
enum class TraceLane : std::uint8_t { compute, copy, warm, move };
inline constexpr std::size_t kNumTraceLanes = 4;

/// What ran on the device, by the device's clock, shifted to std::chrono::steady_clock.
struct DeviceSpan {
  const char* name;
  TraceLane lane;
  index_t group;  // of layers; -1: none
  std::int64_t begin_ns, end_ns;
};

/// Receives spans, nested per lane. `name` has static storage and the form `Class::operation`.
/// Called on the thread that makes the call; must not throw. Null functions: no tracing.
struct TraceSink {
  void* context = nullptr;
  void (*begin)(void* context, const char* name, TraceLane lane) = nullptr;
  void (*end)(void* context, const char* name, TraceLane lane) = nullptr;
  /// Spans of steps, and of what runs beside them, that have ended; called by
  /// PrefetchPipeline::report().
  void (*device)(void* context, const DeviceSpan& span) = nullptr;
};

/// One span of a trace, for a scope.
class TraceSpan {
 public:
  TraceSpan(const TraceSink& sink, const char* name, TraceLane lane = TraceLane::compute) noexcept
      : sink_(sink), name_(name), lane_(lane) {
    if (sink_.begin != nullptr) sink_.begin(sink_.context, name_, lane_);
  }
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;
  ~TraceSpan() {
    if (sink_.end != nullptr) sink_.end(sink_.context, name_, lane_);
  }

 private:
  const TraceSink& sink_;
  const char* name_;
  TraceLane lane_;
};

}  // namespace spectx
