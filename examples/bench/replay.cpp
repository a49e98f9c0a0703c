// SPDX-License-Identifier: Apache-2.0
#include "bench/replay.hpp"

#include <thread>

namespace spectx::bench {

Replay::Replay(Backend& backend, const RecordedTrace& trace, const ReplayShape& shape,
               index_t max_requests)
    : backend_(backend),
      trace_(trace),
      shape_(shape),
      stream_(backend.make_stream()),
      ids_(backend.memories().device, bytes_of(shape, max_requests)) {
  for (index_t i = 0; i < kSteps; ++i) {
    staged_.push_back({Buffer(backend.memories().host, ids_.bytes()),
                       Buffer(backend.memories().device, ids_.bytes()), backend.make_event(),
                       backend.make_event()});
    backend.record(staged_.back().read, stream_);
  }
}

Replay::~Replay() {
  try {
    for (const Staged& staged : staged_) {
      while (!backend_.is_done(staged.read)) std::this_thread::yield();
    }
  } catch (const Error&) {  // of a device that is lost; whoever used it has said so
  }
}

void Replay::stage(const Batch& batch, StreamView stream) {
  Staged& staged = staged_[next_];
  next_ = (next_ + 1) % staged_.size();
  while (!backend_.is_done(staged.read)) std::this_thread::yield();
  auto* to = reinterpret_cast<std::int32_t*>(staged.host.data());
  for (const ScheduledItem& item : batch.items) {
    for (index_t head = 0; head < shape_.kv_heads; ++head, to += shape_.selection.budget) {
      scaled_selection(trace_, shape_, item.request.value, head, item.first + item.rows, to);
    }
  }
  backend_.copy(staged.device.data(), staged.host.data(), bytes_of(batch), stream_);
  backend_.record(staged.sent, stream_);
  backend_.wait(stream, staged.sent);
  backend_.copy(ids_.data(), staged.device.data(), bytes_of(batch), stream);
  backend_.record(staged.read, stream);
}

void Replay::write(const Batch& batch, const Selection& selection, StreamView stream) {
  backend_.copy(selection.ids.data, ids_.data(), bytes_of(batch), stream);
}

}  // namespace spectx::bench
