// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "check.hpp"
#include "spectx/cuda/scratch.hpp"

namespace spectx::cu {

/// Device memory that the operations of one stream use while they run, one after the other: the
/// stream's order is what makes reuse safe. Kept, and grown to powers of two. What a captured
/// operation was given stays where it is: the graph may be launched at any time.
class Scratch {
 public:
  Scratch(MemoryResource& memory, cudaStream_t stream) noexcept
      : memory_(&memory), stream_(stream) {}

  /// At least `bytes`; what was there is lost. Waits for the stream if it has to grow, unless that
  /// is captured.
  std::byte* reserve(index_t bytes) {
    const bool is_captured = is_capturing(stream_);
    if (bytes > buffer_.bytes()) grow(bytes, is_captured);
    is_in_graph_ = is_in_graph_ || is_captured;
    return buffer_.data();
  }

  cudaStream_t stream() const noexcept { return stream_; }
  /// Gives the memory to another stream; the one before must be done.
  void hand_to(cudaStream_t stream) noexcept { stream_ = stream; }

 private:
  void grow(index_t bytes, bool is_captured) {
    if (is_in_graph_ || is_captured) {
      kept_.push_back(std::move(buffer_));
    } else {
      check(cudaStreamSynchronize(stream_));
    }
    buffer_ = Buffer();
    is_in_graph_ = false;
    const AllocationInCapture allowed;
    const std::uint64_t size = std::bit_ceil(static_cast<std::uint64_t>(bytes));
    buffer_ = Buffer(*memory_, std::max(static_cast<index_t>(size), kLeastScratchBytes));
  }

  MemoryResource* memory_;
  cudaStream_t stream_;
  Buffer buffer_;
  bool is_in_graph_ = false;
  std::vector<Buffer> kept_;  // smaller ones that a graph uses, or work under way
};

}  // namespace spectx::cu
