// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "scratch.hpp"

namespace spectx::cu {

/// Carries small copies to pageable host memory, which would make the host wait for the stream,
/// through pinned memory and a host function of the stream.
class CopyStage {
 public:
  static constexpr index_t kPieceBytes = 4096;

  explicit CopyStage(MemoryResource& pinned) : memory_(pinned, kPieces * kPieceBytes) {}

  /// False if every piece is under way.
  bool copy(void* to, const void* from, index_t bytes, cudaStream_t stream);

 private:
  static constexpr index_t kPieces = 64;

  struct Piece {
    std::atomic<bool> is_used = false;
    void* to = nullptr;
    const std::byte* from = nullptr;
    index_t bytes = 0;
  };

  Buffer memory_;
  std::array<Piece, kPieces> pieces_;
};

/// What a backend keeps for one stream.
struct StreamState {
  StreamState(MemoryResource& device, cudaStream_t on);

  cudaStream_t stream;
  Scratch scratch;
  Buffer zeros;                      // [kZeroWords], 0 between launches
  std::unique_ptr<CopyStage> stage;  // made at the first copy that needs it
};

/// The streams of a backend and what it keeps for them. A host's own stream is entered at its first
/// use and stays.
class StreamPool {
 public:
  StreamPool(MemoryResource& device, MemoryResource& pinned) noexcept
      : device_(&device), pinned_(&pinned) {}

  StreamState& of(cudaStream_t stream);
  CopyStage& stage_of(StreamState& state);
  /// The stream must be done; what was kept for it serves another.
  void forget(cudaStream_t stream) noexcept;

 private:
  MemoryResource* device_;
  MemoryResource* pinned_;
  std::vector<std::unique_ptr<StreamState>> used_;
  std::vector<std::unique_ptr<StreamState>> free_;
};

}  // namespace spectx::cu
