// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>

#include "spectx/pool_layout.hpp"
#include "spectx/trace.hpp"

namespace spectx::detail {

/// Sends the spans of a step on the device to a trace. The device's clock is another than the
/// host's: it is shifted so that no step begins before its launch or ends after it was seen to be
/// done.
class StepTrace {
 public:
  explicit StepTrace(const TraceSink& sink) : sink_(sink) {}

  static std::int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }

  /// @param stamps  of the device, ns    @param launch_ns  of the host: before the launch
  void write(const std::uint64_t* stamps, index_t first_group, index_t groups, bool has_lead,
             std::int64_t launch_ns) {
    if (sink_.device == nullptr) return;
    const auto at = [&](index_t place) { return static_cast<std::int64_t>(stamps[place]); };
    const std::int64_t begin = at(StepStamps::kBegin);
    const std::int64_t end = at(StepStamps::kEnd);
    shift(begin, end, launch_ns);
    send("PrefetchPipeline::step", TraceLane::compute, -1, begin, end);
    const bool waits_for_lead = has_lead && at(StepStamps::kLeadEnd) > at(StepStamps::kLeadWait);
    if (first_group == 0 && groups > 0 && waits_for_lead) {
      send("PrefetchPipeline::wait", TraceLane::compute, 0, at(StepStamps::kLeadWait),
           at(StepStamps::kLeadWaitEnd));
    }
    for (index_t g = first_group; g < groups; ++g) {
      const auto of = [&](index_t which) { return at(StepStamps::of_group(g, which)); };
      send("PrefetchPipeline::gather", TraceLane::copy, g, of(StepStamps::kTransfer),
           of(StepStamps::kTransferEnd));
      if (of(StepStamps::kTransferEnd) <= of(StepStamps::kWait)) continue;
      send("PrefetchPipeline::wait", TraceLane::compute, g, of(StepStamps::kWait),
           of(StepStamps::kWaitEnd));
    }
    if (first_group == groups) return;  // nothing is offloaded, so nothing is written through
    send("PrefetchPipeline::write_through", TraceLane::copy, -1, at(StepStamps::kWrite),
         at(StepStamps::kWriteEnd));
  }

  /// Work of another stream, from one stamp to another.
  void write(const char* name, TraceLane lane, std::uint64_t from, std::uint64_t to,
             std::int64_t launch_ns) {
    const auto begin = static_cast<std::int64_t>(from);
    const auto end = std::max(static_cast<std::int64_t>(to), begin);
    shift(begin, end, launch_ns);
    send(name, lane, -1, begin, end);
  }

 private:
  void shift(std::int64_t begin, std::int64_t end, std::int64_t launch_ns) {
    const std::int64_t earliest = launch_ns - begin;
    const std::int64_t latest = std::max(now_ns() - end, earliest);
    shift_ = has_shift_ ? std::clamp(shift_, earliest, latest) : earliest;
    has_shift_ = true;
  }
  void send(const char* name, TraceLane lane, index_t group, std::int64_t begin, std::int64_t end) {
    sink_.device(sink_.context, {name, lane, group, begin + shift_, end + shift_});
  }

  const TraceSink& sink_;
  std::int64_t shift_ = 0;  // from the device's clock to the host's
  bool has_shift_ = false;
};

}  // namespace spectx::detail
