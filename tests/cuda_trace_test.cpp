// SPDX-License-Identifier: Apache-2.0
// Spans of a backend that makes NVTX ranges reach the host's sink too.
#include <string>
#include <vector>

#include "catch.hpp"
#include "spectx/cuda/backend.hpp"
#include "support/backends.hpp"

using namespace spectx;

TEST_CASE("NVTX ranges leave the host's spans as they are") {
  const auto all = test::backends();  // fails here if a device is required and missing
  if (cu::device_count() == 0) {
    WARN("no CUDA device: nothing was tested");
    return;
  }
  std::vector<std::string> calls;
  TraceSink sink;
  sink.context = &calls;
  sink.begin = [](void* context, const char* name, TraceLane) {
    static_cast<std::vector<std::string>*>(context)->push_back(std::string("begin ") + name);
  };
  sink.end = [](void* context, const char* name, TraceLane) {
    static_cast<std::vector<std::string>*>(context)->push_back(std::string("end ") + name);
  };
  sink.device = [](void* context, const DeviceSpan& span) {
    static_cast<std::vector<std::string>*>(context)->push_back(span.name);
  };
  const auto backend = cu::make_backend({.trace = sink, .has_nvtx_ranges = true});
  const Stream stream = backend->make_stream();
  const Buffer memory(backend->memories().device, 64);
  backend->fill(memory.data(), 0, 64, stream);
  backend->trace().device(backend->trace().context, {"span", TraceLane::copy, 0, 0, 1});
  backend->synchronize(stream);
  REQUIRE(calls ==
          std::vector<std::string>{"begin CudaBackend::fill", "end CudaBackend::fill", "span"});
}
