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
      threads_(backend.runs_at_call() ? 1 : kThreads),
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

void Replay::choose(const ScheduledItem& item, std::int32_t* ids) const {
  for (index_t head = 0; head < shape_.kv_heads; ++head, ids += shape_.selection.budget) {
    scaled_selection(trace_, shape_, item.request.value, head, item.first + item.rows, ids);
  }
}

void Replay::stage(const Batch& batch, StreamView stream) {
  Staged& staged = staged_[next_];
  next_ = (next_ + 1) % staged_.size();
  while (!backend_.is_done(staged.read)) std::this_thread::yield();
  struct Work {
    const Replay& replay;
    std::span<const ScheduledItem> items;
    std::byte* ids;
  } work{*this, batch.items, staged.host.data()};
  threads_.run(static_cast<index_t>(batch.items.size()), &work, [](void* all, index_t i, int) {
    const Work& w = *static_cast<const Work*>(all);
    auto* const ids = reinterpret_cast<std::int32_t*>(w.ids + i * bytes_of(w.replay.shape_, 1));
    w.replay.choose(w.items[static_cast<std::size_t>(i)], ids);
  });
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
