// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "bench/engine.hpp"
#include "bench/trace.hpp"

namespace spectx::bench {

/// Scaled recorded selections, written over what the head chose. The host makes those of a step
/// between steps: a batch may grow and change.
class Replay final : public SelectionSource {
 public:
  /// Throws OutOfMemory.
  Replay(Backend& backend, const RecordedTrace& trace, const ReplayShape& shape,
         index_t max_requests);
  Replay(Replay&&) = delete;
  ~Replay() override;

  /// Of the device.
  static index_t bytes(const ReplayShape& shape, index_t max_requests) {
    return max_requests * shape.kv_heads * shape.selection.budget * 4;
  }
  /// Another share of random rows, from the next step on.
  void scale(double random_share) { shape_.random_share = random_share; }
  void stage(const Batch& batch, StreamView stream) override;
  void write(const Batch& batch, const Selection& selection, StreamView stream) override;

 private:
  /// What the stream reads while the host is some steps ahead.
  struct Staged {
    Buffer ids;  // host
    Event read;
  };

  index_t bytes_of(const Batch& batch) const {
    return bytes(shape_, static_cast<index_t>(batch.items.size()));
  }

  Backend& backend_;
  const RecordedTrace& trace_;
  ReplayShape shape_;
  Buffer ids_;  // device: [max_requests, kv_heads, budget] of the step that comes
  std::vector<Staged> staged_;
  std::size_t next_ = 0;
};

}  // namespace spectx::bench
