// SPDX-License-Identifier: Apache-2.0
#include "bench/replay.hpp"

#include <thread>

namespace spectx::bench {

Replay::Replay(Backend& backend, const RecordedTrace& trace, const ReplayShape& shape,
               index_t max_requests)
    : backend_(backend),
      trace_(trace),
      shape_(shape),
      ids_(backend.memories().device, bytes(shape, max_requests)) {
  constexpr int kSteps = 4;  // as far as the host is ahead of the device, and more
  const Stream stream = backend.make_stream();
  for (int i = 0; i < kSteps; ++i) {
    staged_.push_back({Buffer(backend.memories().host, ids_.bytes()), backend.make_event()});
    backend.record(staged_.back().read, stream);
  }
}

Replay::~Replay() {
  for (const Staged& staged : staged_) {
    while (!backend_.is_done(staged.read)) std::this_thread::yield();
  }
}

void Replay::stage(const Batch& batch, StreamView stream) {
  Staged& staged = staged_[next_];
  next_ = (next_ + 1) % staged_.size();
  while (!backend_.is_done(staged.read)) std::this_thread::yield();
  auto* to = reinterpret_cast<std::int32_t*>(staged.ids.data());
  for (const ScheduledItem& item : batch.items) {
    for (index_t head = 0; head < shape_.kv_heads; ++head, to += shape_.selection.budget) {
      scaled_selection(trace_, shape_, item.request.value, head, item.first + item.rows, to);
    }
  }
  backend_.copy(ids_.data(), staged.ids.data(), bytes_of(batch), stream);
  backend_.record(staged.read, stream);
}

void Replay::write(const Batch& batch, const Selection& selection, StreamView stream) {
  backend_.copy(selection.ids.data, ids_.data(), bytes_of(batch), stream);
}

}  // namespace spectx::bench
