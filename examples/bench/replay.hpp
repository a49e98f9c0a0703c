// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bench/engine.hpp"
#include "bench/trace.hpp"

namespace spectx::bench {

/// Scaled selections of every request and step, in device memory, written over what the head chose.
class Replay final : public SelectionSource {
 public:
  /// Blocks until they are there. Throws OutOfMemory.
  Replay(Backend& backend, const RecordedTrace& trace, const ReplayShape& shape, index_t requests,
         index_t steps);

  static index_t bytes(const ReplayShape& shape, index_t requests, index_t steps) {
    return (steps + 1) * requests * shape.kv_heads * shape.selection.budget * 4;
  }
  void stage(index_t step, StreamView stream) override;
  void write(const Selection& selection, StreamView stream) override;

 private:
  Backend& backend_;
  index_t steps_;
  index_t step_ids_;
  Buffer ids_;  // [steps + 1, requests, kv_heads, budget], the last is the step that comes
};

}  // namespace spectx::bench
