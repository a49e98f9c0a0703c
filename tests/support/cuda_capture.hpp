// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "../catch.hpp"
#include "replay_loop.hpp"
#include "spectx/cuda/interop.hpp"

namespace spectx::test {

inline void check(cudaError_t status) {
  CAPTURE(cudaGetErrorString(status));
  REQUIRE(status == cudaSuccess);
}

/// What `work` puts on the stream, as a graph.
inline std::shared_ptr<cudaGraphExec_t> capture(StreamView on, cudaStreamCaptureMode mode,
                                                const std::function<void()>& work) {
  const cudaStream_t stream = cu::cuda_stream(on);
  cudaGraph_t graph = nullptr;
  check(cudaStreamBeginCapture(stream, mode));
  try {
    work();
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(stream, &graph));
    static_cast<void>(cudaGraphDestroy(graph));
    static_cast<void>(cudaGetLastError());
    throw;
  }
  check(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec = nullptr;
  check(cudaGraphInstantiate(&exec, graph, 0));
  check(cudaGraphDestroy(graph));
  return {new cudaGraphExec_t(exec), [](cudaGraphExec_t* e) {
            static_cast<void>(cudaGraphExecDestroy(*e));
            delete e;
          }};
}

/// Of a ReplayLoop.
inline ReplayLoop::Capture capture_by(cudaStreamCaptureMode mode) {
  return [mode](ReplayLoop& loop, const std::function<void()>& step) -> ReplayLoop::Launch {
    const auto graph = capture(loop.stream, mode, step);
    return [graph, &loop] { check(cudaGraphLaunch(*graph, cu::cuda_stream(loop.stream))); };
  };
}

}  // namespace spectx::test
