// SPDX-License-Identifier: Apache-2.0
#include "stream_pool.hpp"

#include <cstring>

#include "kernels.hpp"

namespace spectx::cu {

bool CopyStage::copy(void* to, const void* from, index_t bytes, cudaStream_t stream) {
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    Piece& piece = pieces_[i];
    if (piece.is_used.load(std::memory_order_acquire)) continue;
    piece.is_used.store(true, std::memory_order_relaxed);
    std::byte* const pinned = memory_.data() + static_cast<index_t>(i) * kPieceBytes;
    piece.to = to;
    piece.from = pinned;
    piece.bytes = bytes;
    check(
        cudaMemcpyAsync(pinned, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream));
    check(cudaLaunchHostFunc(
        stream,
        [](void* context) {
          Piece& arrived = *static_cast<Piece*>(context);
          std::memcpy(arrived.to, arrived.from, static_cast<std::size_t>(arrived.bytes));
          arrived.is_used.store(false, std::memory_order_release);
        },
        &piece));
    return true;
  }
  return false;
}

StreamState::StreamState(MemoryResource& device, cudaStream_t on)
    : stream(on), scratch(device, on), zeros(device, kZeroWords * index_t{sizeof(std::uint32_t)}) {
  check(cudaMemsetAsync(zeros.data(), 0, static_cast<std::size_t>(zeros.bytes()), on));
}

StreamState& StreamPool::of(cudaStream_t stream) {
  for (const auto& state : used_) {
    if (state->stream == stream) return *state;
  }
  expects(!is_capturing(stream), "CudaBackend: a stream's first operation cannot be captured");
  used_.reserve(used_.size() + 1);
  free_.reserve(used_.capacity() + free_.size());  // forget() must not allocate
  if (free_.empty()) {
    used_.push_back(std::make_unique<StreamState>(*device_, stream));
  } else {
    used_.push_back(std::move(free_.back()));
    free_.pop_back();
    used_.back()->stream = stream;
    used_.back()->scratch.hand_to(stream);
  }
  return *used_.back();
}

CopyStage& StreamPool::stage_of(StreamState& state) {
  if (!state.stage) state.stage = std::make_unique<CopyStage>(*pinned_);
  return *state.stage;
}

void StreamPool::forget(cudaStream_t stream) noexcept {
  for (auto& state : used_) {
    if (state->stream != stream) continue;
    free_.push_back(std::move(state));
    state = std::move(used_.back());
    used_.pop_back();
    return;
  }
}

}  // namespace spectx::cu
