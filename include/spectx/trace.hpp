// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace spectx {

/// The stream on whose behalf a span runs: one lane each in a trace.
enum class TraceLane : unsigned char { compute, copy };

/// Receives spans, nested per lane. `name` has static storage and the form `Class::operation`.
/// Called on the thread that makes the call; must not throw. Null functions: no tracing.
struct TraceSink {
  void* context = nullptr;
  void (*begin)(void* context, const char* name, TraceLane lane) = nullptr;
  void (*end)(void* context, const char* name, TraceLane lane) = nullptr;
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
