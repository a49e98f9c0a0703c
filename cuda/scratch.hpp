// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>

#include "check.hpp"
#include "spectx/memory.hpp"

namespace spectx::cu {

/// Device memory that the operations of one stream use while they run, one after the other: the
/// stream's order is what makes reuse safe. Kept, and grown to powers of two.
class Scratch {
 public:
  Scratch(MemoryResource& memory, cudaStream_t stream) noexcept
      : memory_(&memory), stream_(stream) {}

  /// At least `bytes`; what was there is lost. Waits for the stream if it has to grow.
  std::byte* reserve(index_t bytes) {
    if (bytes > buffer_.bytes()) {
      check(cudaStreamSynchronize(stream_));
      buffer_ = Buffer();
      const std::uint64_t size = std::bit_ceil(static_cast<std::uint64_t>(bytes));
      buffer_ = Buffer(*memory_, std::max(static_cast<index_t>(size), kSmallest));
    }
    return buffer_.data();
  }

  cudaStream_t stream() const noexcept { return stream_; }
  /// Gives the memory to another stream; the one before must be done.
  void hand_to(cudaStream_t stream) noexcept { stream_ = stream; }

 private:
  static constexpr index_t kSmallest = index_t{4} << 20;

  MemoryResource* memory_;
  cudaStream_t stream_;
  Buffer buffer_;
};

}  // namespace spectx::cu
