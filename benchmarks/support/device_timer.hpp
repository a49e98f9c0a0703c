// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

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

/// Times `operation(iteration)` on the device, and reports its rate from the bytes that it has to
/// move. Warmed up by three runs, so that nothing grows while it is timed.
inline void time_on_device(benchmark::State& state, index_t bytes,
                           const std::function<void(int)>& operation) {
  const cudaStream_t stream = cu::cuda_stream(Gpu::get().stream);
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  int iteration = 0;
  for (; iteration < 3; ++iteration) operation(iteration);
  cudaStreamSynchronize(stream);
  for (auto _ : state) {
    cudaEventRecord(begin, stream);
    operation(iteration++);
    cudaEventRecord(end, stream);
    cudaEventSynchronize(end);
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    state.SetIterationTime(static_cast<double>(ms) * 1e-3);
  }
  if (cudaGetLastError() != cudaSuccess) state.SkipWithError("a CUDA call failed");
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  state.SetBytesProcessed(state.iterations() * bytes);
}

}  // namespace spectx::bench
