// SPDX-License-Identifier: Apache-2.0
#include "bench/replay.hpp"

#include <thread>

namespace spectx::bench {

Replay::Replay(Backend& backend, const RecordedTrace& trace, const ReplayShape& shape,
               index_t requests, index_t steps)
    : backend_(backend),
      steps_(steps),
      step_ids_(requests * shape.kv_heads * shape.selection.budget),
      ids_(backend.memories().device, bytes(shape, requests, steps)) {
  const Stream stream = backend.make_stream();
  const auto num_threads = static_cast<index_t>(std::max(1U, std::thread::hardware_concurrency()));
  // A few steps at a time: all of them would be as large as the table.
  std::vector<std::int32_t> ids(static_cast<std::size_t>(num_threads * step_ids_));
  for (index_t begin = 0; begin < steps; begin += num_threads) {
    const index_t count = std::min(num_threads, steps - begin);
    std::vector<std::thread> threads;
    for (index_t n = 0; n < count; ++n) {
      threads.emplace_back([&, n] {
        std::int32_t* to = ids.data() + n * step_ids_;
        for (index_t request = 0; request < requests; ++request) {
          for (index_t head = 0; head < shape.kv_heads; ++head, to += shape.selection.budget) {
            scaled_selection(trace, shape, request, head, begin + n, to);
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    backend.copy(ids_.data() + begin * step_ids_ * 4, ids.data(), count * step_ids_ * 4, stream);
    backend.synchronize(stream);
  }
}

void Replay::stage(index_t step, StreamView stream) {
  expects(step < steps_, "Replay::stage: made for fewer steps");
  const index_t bytes = step_ids_ * 4;
  backend_.copy(ids_.data() + steps_ * bytes, ids_.data() + step * bytes, bytes, stream);
}

void Replay::write(const Selection& selection, StreamView stream) {
  const index_t bytes = step_ids_ * 4;
  backend_.copy(selection.ids.data, ids_.data() + steps_ * bytes, bytes, stream);
}

}  // namespace spectx::bench
