// SPDX-License-Identifier: Apache-2.0
#include "support/captured_step.hpp"

#include <string>
#include <utility>

#include "spectx/error.hpp"

#ifdef SPECTX_WITH_CUDA
#include "spectx/cuda/interop.hpp"
#endif

namespace spectx::support {

CapturedStep::CapturedStep(CapturedStep&& other) noexcept
    : graph_(std::exchange(other.graph_, nullptr)) {}

#ifdef SPECTX_WITH_CUDA
namespace {

void check(cudaError_t status) {
  if (status != cudaSuccess) {
    throw Error(std::string("a step cannot be captured: ") + cudaGetErrorString(status));
  }
}

}  // namespace

CapturedStep::CapturedStep(StreamView stream, const std::function<void()>& work) {
  cudaGraph_t captured = nullptr;
  check(cudaStreamBeginCapture(cu::cuda_stream(stream), cudaStreamCaptureModeThreadLocal));
  try {
    work();
  } catch (...) {  // a thread that goes on capturing could not free memory
    static_cast<void>(cudaStreamEndCapture(cu::cuda_stream(stream), &captured));
    static_cast<void>(cudaGraphDestroy(captured));
    static_cast<void>(cudaGetLastError());
    throw;
  }
  check(cudaStreamEndCapture(cu::cuda_stream(stream), &captured));
  cudaGraphExec_t graph = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&graph, captured, 0);
  static_cast<void>(cudaGraphDestroy(captured));
  check(status);
  graph_ = graph;
}

CapturedStep::~CapturedStep() {
  if (graph_ != nullptr)
    static_cast<void>(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph_)));
}

void CapturedStep::launch(StreamView stream) const {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph_), cu::cuda_stream(stream)));
}
#else
CapturedStep::CapturedStep(StreamView, const std::function<void()>&) {
  throw Unsupported("steps are captured on a CUDA device alone");
}
CapturedStep::~CapturedStep() = default;
void CapturedStep::launch(StreamView) const {}
#endif

}  // namespace spectx::support
