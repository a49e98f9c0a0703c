// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "bench/engine.hpp"
#include "bench/trace.hpp"
#include "spectx/cpu/thread_pool.hpp"

namespace spectx::bench {

/// Scaled recorded selections, written over what the head chose. The host makes those of a step
/// between steps, since a batch may grow and change, with some threads, and sends them on a stream
/// of their own, so that a step takes no longer than with a head's.
class Replay final : public SelectionSource {
 public:
  /// Throws OutOfMemory.
  Replay(Backend& backend, const RecordedTrace& trace, const ReplayShape& shape,
         index_t max_requests);
  Replay(Replay&&) = delete;
  ~Replay() override;

  /// Of the device.
  static index_t bytes(const ReplayShape& shape, index_t max_requests) {
    return (1 + kSteps) * bytes_of(shape, max_requests);
  }
  /// Another share of random rows, from the next step on.
  void scale(double random_share) { shape_.random_share = random_share; }
  void stage(const Batch& batch, StreamView stream) override;
  void write(const Batch& batch, const Selection& selection, StreamView stream) override;

 private:
  /// What the stream reads while the host is some steps ahead.
  struct Staged {
    Buffer host, device;  // ids
    Event sent, read;
  };

  static constexpr int kThreads = 4;    // one alone needs 4 to 8 ms for 34 requests
  static constexpr index_t kSteps = 4;  // as far as the host is ahead of the device, and more
  static index_t bytes_of(const ReplayShape& shape, index_t requests) {
    return requests * shape.kv_heads * shape.selection.budget * 4;
  }
  /// The selections of every head of a request, in its place of the batch.
  void choose(const ScheduledItem& item, std::int32_t* ids) const;
  index_t bytes_of(const Batch& batch) const {
    return bytes_of(shape_, static_cast<index_t>(batch.items.size()));
  }

  Backend& backend_;
  const RecordedTrace& trace_;
  ReplayShape shape_;
  Stream stream_;
  cpu::ThreadPool threads_;
  Buffer ids_;  // device: [max_requests, kv_heads, budget] of the step that comes
  std::vector<Staged> staged_;
  std::size_t next_ = 0;
};

}  // namespace spectx::bench
