// SPDX-License-Identifier: Apache-2.0
// Pinned memory: blocks of any size, that kernels reach, taken while a graph is captured.
#include <cuda_runtime_api.h>

#include <cstring>
#include <thread>

#include "catch.hpp"
#include "spectx/cuda/interop.hpp"
#include "spectx/host_memory.hpp"
#include "support/cuda_device.hpp"
#include "support/device_data.hpp"

using namespace spectx;
using namespace spectx::test;

TEST_CASE("a kernel and the host see the same bytes of a block of any size") {
  const auto b = device();
  if (b == nullptr) return;
  REQUIRE(b->memories().host.is_slow());
  REQUIRE_FALSE(b->memories().device.is_slow());
  for (const index_t bytes : {index_t{4}, index_t{4096}, (index_t{4} << 20) - 4, index_t{4} << 20,
                              (index_t{6} << 20) + 12, index_t{64} << 20}) {
    CAPTURE(bytes);
    const Buffer host(b->memories().host, bytes);
    REQUIRE(reinterpret_cast<std::uintptr_t>(host.data()) % 256 == 0);
    const index_t count = bytes / 4;
    auto* const values = reinterpret_cast<float*>(host.data());
    for (index_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 1024);
    const TensorView view = matrix_view(values, DType::f32, 1, count);
    run_on(*b, [&](StreamView stream) { b->add({view, view, view}, stream); });
    index_t wrong = 0;
    for (index_t i = 0; i < count; ++i) {
      wrong += values[i] == static_cast<float>(2 * (i % 1024)) ? 0 : 1;
    }
    REQUIRE(wrong == 0);
  }
}

TEST_CASE("more than the process may take is refused before it is touched") {
  const auto b = device();
  if (b == nullptr) return;
  const index_t left = host_memory_limit();
  try {
    const Buffer host(b->memories().host, left / 2 * 3);
    FAIL("nothing was thrown");
  } catch (const OutOfMemory& error) {
    REQUIRE(error.tier() == Tier::host);
    REQUIRE(error.bytes_asked() == left / 2 * 3);
    REQUIRE(error.bytes_free() < error.bytes_asked());
  }
  const Buffer host(b->memories().host, index_t{8} << 20);
  REQUIRE(host.data() != nullptr);
}

TEST_CASE("a thread takes pinned memory while another one captures a graph") {
  const auto b = device();
  if (b == nullptr) return;
  const index_t bytes = GENERATE(index_t{1} << 20, index_t{16} << 20);
  const Stream stream = b->make_stream();
  const DeviceArray<float> x(*b, std::vector<float>(64, 1));
  const TensorView view = matrix_view(x.data(), DType::f32, 1, 64);
  b->add({view, view, view}, stream);
  b->synchronize(stream);
  const cudaStream_t raw = cu::cuda_stream(stream);
  REQUIRE(cudaStreamBeginCapture(raw, cudaStreamCaptureModeGlobal) == cudaSuccess);
  b->add({view, view, view}, stream);
  Buffer host;
  std::string failure;
  std::thread other([&] {
    try {
      host = Buffer(b->memories().host, bytes);
    } catch (const Error& error) {
      failure = error.what();
    }
  });
  other.join();
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamEndCapture(raw, &graph) == cudaSuccess);
  cudaGraphDestroy(graph);
  REQUIRE(failure == "");
  REQUIRE(host.bytes() == bytes);
}
