// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <vector>

#include "spectx/trace.hpp"
#include "spectx/types.hpp"

namespace spectx::support {

/// Sums the time of every kind of span and keeps up to `max_events` of them for a trace that
/// Chrome's about:tracing and ui.perfetto.dev read. Memory is bounded: later spans are only counted
/// and summed. Not thread-safe, like the backend that calls it.
class TraceRecorder {
 public:
  explicit TraceRecorder(index_t max_events)
      : max_events_(static_cast<std::size_t>(max_events)), start_(Clock::now()) {
    events_.reserve(max_events_);
  }
  TraceRecorder(TraceRecorder&&) = delete;

  /// Whether spans from now on are kept for the trace; they are summed in any case.
  void keep_events(bool keeps) noexcept { keeps_ = keeps; }

  TraceSink sink() noexcept {
    return {.context = this, .begin = &begin, .end = &end, .device = &device};
  }

  /// Nanoseconds in spans of that name so far, spans within it included.
  std::int64_t total_ns(const char* name) const noexcept {
    std::int64_t sum = 0;
    for (const Total& total : totals_) {
      if (total.name != nullptr && std::strcmp(total.name, name) == 0) sum += total.ns;
    }
    return sum;
  }

  /// The spans as Chrome's JSON trace format has them.
  void write(std::ostream& out) const;

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kMaxDepth = 16;   // deeper spans are not recorded
  static constexpr std::size_t kMaxNames = 128;  // a power of two
  struct Event {
    const char* name;
    std::int64_t start_ns;
    std::int64_t ns;
    TraceLane lane;
    bool is_device = false;
    index_t group = -1;
  };
  struct Total {
    const char* name = nullptr;
    std::int64_t ns = 0;
  };
  struct Lane {
    std::array<std::int64_t, kMaxDepth> started;
    std::size_t depth = 0;
  };

  std::int64_t now() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count();
  }
  static void begin(void* context, const char*, TraceLane lane_id) {
    auto& self = *static_cast<TraceRecorder*>(context);
    Lane& lane = self.lanes_[static_cast<std::size_t>(lane_id)];
    if (lane.depth < kMaxDepth) lane.started[lane.depth] = self.now();
    ++lane.depth;
  }
  static void end(void* context, const char* name, TraceLane lane_id) {
    auto& self = *static_cast<TraceRecorder*>(context);
    Lane& lane = self.lanes_[static_cast<std::size_t>(lane_id)];
    if (--lane.depth >= kMaxDepth) return;
    const std::int64_t started = lane.started[lane.depth];
    const Event event{name, started, self.now() - started, lane_id};
    self.keep(event);
    self.add(event);
  }
  static void device(void* context, const DeviceSpan& span) {
    auto& self = *static_cast<TraceRecorder*>(context);
    const std::int64_t start =
        std::chrono::duration_cast<std::chrono::nanoseconds>(self.start_.time_since_epoch())
            .count();
    self.keep({span.name, span.begin_ns - start, span.end_ns - span.begin_ns, span.lane, true,
               span.group});
  }
  void keep(const Event& event) {
    if (!keeps_) return;
    if (events_.size() < max_events_) {
      events_.push_back(event);
    } else {
      ++dropped_;
    }
  }
  void add(const Event& event) {
    std::size_t at = reinterpret_cast<std::uintptr_t>(event.name) / 8;
    for (std::size_t tries = 0; tries < kMaxNames; ++tries, ++at) {
      Total& total = totals_[at % kMaxNames];
      if (total.name == nullptr) total.name = event.name;
      if (total.name != event.name) continue;
      total.ns += event.ns;
      return;
    }
  }

  std::size_t max_events_;
  Clock::time_point start_;
  std::vector<Event> events_;
  bool keeps_ = true;
  std::array<Total, kMaxNames> totals_{};
  std::array<Lane, kNumTraceLanes> lanes_{};
  index_t dropped_ = 0;
};

inline void TraceRecorder::write(std::ostream& out) const {
  out << R"({"displayTimeUnit":"ms","otherData":{"spans_not_kept":)" << dropped_
      << R"(},"traceEvents":[)"
      << R"({"ph":"M","pid":1,"name":"process_name","args":{"name":"spectx"}})";
  constexpr std::array<const char*, kNumTraceLanes> kLanes = {"compute", "copy", "warm", "move"};
  for (std::size_t lane = 0; lane < 2 * kNumTraceLanes; ++lane) {
    out << ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":" << lane
        << ",\"name\":\"thread_name\",\"args\":{\"name\":\""
        << (lane < kNumTraceLanes ? "calls, " : "device, ") << kLanes[lane % kNumTraceLanes]
        << "\"}}";
  }
  const auto flags = out.flags();
  const auto precision = out.precision(3);
  out.setf(std::ios::fixed, std::ios::floatfield);
  for (const Event& event : events_) {  // names are identifiers: nothing to escape
    out << ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":"
        << static_cast<std::size_t>(event.lane) + (event.is_device ? kNumTraceLanes : 0)
        << ",\"name\":\"" << event.name
        << "\",\"ts\":" << static_cast<double>(event.start_ns) * 1e-3
        << ",\"dur\":" << static_cast<double>(event.ns) * 1e-3;
    if (event.group >= 0) out << ",\"args\":{\"group\":" << event.group << "}";
    out << "}";
  }
  out << "]}\n";
  out.flags(flags);
  out.precision(precision);
}

}  // namespace spectx::support
