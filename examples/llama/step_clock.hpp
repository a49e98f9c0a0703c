// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "spectx/backend.hpp"

namespace spectx::llama {

/// Splits a step's time into parts by stamps that the stream itself writes. Marks may be captured
/// in a graph. Not thread-safe.
class StepClock {
 public:
  /// @param max_marks  of one step; those beyond are not made
  StepClock(Backend& backend, index_t max_marks)
      : backend_(backend),
        stamps_(backend.memories().device, max_marks * 8),
        on_host_(static_cast<std::size_t>(max_marks)) {
    parts_.reserve(on_host_.size());
  }

  void begin_step() noexcept { parts_.clear(); }
  /// From here to the next mark the stream works for `part`.
  void mark(int part, StreamView stream) {
    if (parts_.size() == on_host_.size()) return;
    backend_.stamp(reinterpret_cast<std::uint64_t*>(stamps_.data()) + parts_.size(), stream);
    parts_.push_back(part);
  }
  /// The parts of the step's marks, and, before a captured step is launched, of its own.
  const std::vector<int>& parts() const noexcept { return parts_; }
  void begin_replay(const std::vector<int>& parts) { parts_ = parts; }
  /// Sends the stamps to the host; async. The last mark ends the step.
  void send(StreamView stream) {
    backend_.copy(on_host_.data(), stamps_.data(), static_cast<index_t>(parts_.size()) * 8, stream);
  }
  /// Adds what was sent and has arrived: seconds [parts].
  void add_to(std::span<double> seconds) const {
    for (std::size_t i = 0; i + 1 < parts_.size(); ++i) {
      const std::uint64_t from = on_host_[i];
      const std::uint64_t to = std::max(on_host_[i + 1], from);
      seconds[static_cast<std::size_t>(parts_[i])] += static_cast<double>(to - from) * 1e-9;
    }
  }

 private:
  Backend& backend_;
  Buffer stamps_;  // [max_marks] uint64, ns
  std::vector<std::uint64_t> on_host_;
  std::vector<int> parts_;  // of each mark
};

}  // namespace spectx::llama
