// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>

#include "spectx/cuda/backend.hpp"
#include "spectx/cuda/interop.hpp"

namespace spectx::bench {

/// One backend and stream for all benchmarks of a program.
struct Gpu {
  std::unique_ptr<Backend> backend = cu::make_backend();
  Stream stream = backend->make_stream();

  static Gpu& get() {
    static Gpu gpu;
    return gpu;
  }
};

/// A pair of events around what a stream does.
class DeviceTimer {
 public:
  explicit DeviceTimer(cudaStream_t stream) : stream_(stream) {
    cudaEventCreate(&begin_);
    cudaEventCreate(&end_);
  }
  DeviceTimer(const DeviceTimer&) = delete;
  DeviceTimer& operator=(const DeviceTimer&) = delete;
  ~DeviceTimer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  template <class Work>
  double seconds(Work&& work) const {
    cudaEventRecord(begin_, stream_);
    work();
    cudaEventRecord(end_, stream_);
    cudaEventSynchronize(end_);
    float ms = 0;
    cudaEventElapsedTime(&ms, begin_, end_);
    return static_cast<double>(ms) * 1e-3;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

/// Times `operation(iteration)` on the device, and reports its rate from the bytes that it has to
/// move. Warmed up by three runs, so that nothing grows while it is timed.
inline void time_on_device(benchmark::State& state, index_t bytes,
                           const std::function<void(int)>& operation) {
  const cudaStream_t stream = cu::cuda_stream(Gpu::get().stream);
  const DeviceTimer timer(stream);
  int iteration = 0;
  for (; iteration < 3; ++iteration) operation(iteration);
  cudaStreamSynchronize(stream);
  for (auto _ : state) {
    state.SetIterationTime(timer.seconds([&] { operation(iteration++); }));
  }
  if (cudaGetLastError() != cudaSuccess) state.SkipWithError("a CUDA call failed");
  state.SetBytesProcessed(state.iterations() * bytes);
}

/// Operations 0 to count - 1 in a CUDA graph: as a captured step runs them, without the gaps that
/// the host's launches leave.
class TimedGraph {
 public:
  TimedGraph(int count, const std::function<void(int)>& operation)
      : stream_(cu::cuda_stream(Gpu::get().stream)), timer_(stream_), count_(count) {
    for (int i = 0; i < count; ++i) operation(i);  // what grows, grows now
    cudaStreamSynchronize(stream_);
    cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    for (int i = 0; i < count; ++i) operation(i);
    cudaStreamEndCapture(stream_, &graph_);
    cudaGraphInstantiate(&executable_, graph_, 0);
    for (int i = 0; i < 3; ++i) static_cast<void>(seconds());
  }
  TimedGraph(const TimedGraph&) = delete;
  TimedGraph& operator=(const TimedGraph&) = delete;
  ~TimedGraph() {
    cudaGraphExecDestroy(executable_);
    cudaGraphDestroy(graph_);
  }

  /// Of one operation, the mean over a replay.
  double seconds() const {
    return timer_.seconds([this] { cudaGraphLaunch(executable_, stream_); }) / count_;
  }

 private:
  cudaStream_t stream_;
  DeviceTimer timer_;
  int count_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

/// Bytes a second that a copy inside the device reads and writes, measured once.
inline double device_copy_rate() {
  static const double rate = [] {
    Gpu& gpu = Gpu::get();
    const DeviceTimer timer(cu::cuda_stream(gpu.stream));
    const index_t bytes = index_t{2} << 30;
    const Buffer from(gpu.backend->memories().device, bytes);
    const Buffer to(gpu.backend->memories().device, bytes);
    double best = 1;
    for (int i = 0; i < 10; ++i) {
      best = std::min(best, timer.seconds([&] {
        gpu.backend->copy(to.data(), from.data(), bytes, gpu.stream);
      }));
    }
    return 2 * static_cast<double>(bytes) / best;
  }();
  return rate;
}

/// Times `operation(i)`, i < count, by replays of a graph. Reports its rate from the bytes that it
/// has to move, and `of_copy`: that rate beside the device copy's.
inline void time_replays(benchmark::State& state, index_t bytes, int count,
                         const std::function<void(int)>& operation) {
  const double copy_rate = device_copy_rate();
  const TimedGraph graph(count, operation);
  double total = 0;
  for (auto _ : state) {
    const double seconds = graph.seconds();
    total += seconds;
    state.SetIterationTime(seconds);
  }
  if (cudaGetLastError() != cudaSuccess) return state.SkipWithError("a CUDA call failed");
  state.SetBytesProcessed(state.iterations() * bytes);
  const double rate = static_cast<double>(bytes) * static_cast<double>(state.iterations()) / total;
  state.counters["of_copy"] = rate / copy_rate;
  // Microseconds beyond the bytes at 85 % of the copy's rate.
  state.counters["over_us"] = (total / static_cast<double>(state.iterations()) -
                               static_cast<double>(bytes) / (0.85 * copy_rate)) *
                              1e6;
}

}  // namespace spectx::bench
