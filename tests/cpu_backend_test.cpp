// SPDX-License-Identifier: Apache-2.0
#include "spectx/cpu/backend.hpp"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"

using namespace spectx;

TEST_CASE("HeapMemory aligns, and reports what it cannot give") {
  cpu::HeapMemory memory(Tier::host);
  for (const index_t bytes : {index_t{0}, index_t{1}, index_t{255}, index_t{5} << 20}) {
    for (const index_t alignment : {index_t{1}, index_t{256}, index_t{4096}}) {
      CAPTURE(bytes, alignment);
      void* const block = memory.allocate(bytes, alignment);
      REQUIRE(block != nullptr);
      REQUIRE(reinterpret_cast<std::uintptr_t>(block) % static_cast<std::size_t>(alignment) == 0);
      std::memset(block, 1, static_cast<std::size_t>(bytes));
      memory.deallocate(block, bytes);
    }
  }
  REQUIRE_THROWS_AS(memory.allocate(-1), InvalidArgument);
  REQUIRE_THROWS_AS(memory.allocate(8, 3), InvalidArgument);
  REQUIRE_THROWS_AS(memory.allocate(8, 0), InvalidArgument);
  const index_t absurd =
      GENERATE(std::numeric_limits<index_t>::max(), std::numeric_limits<index_t>::max() / 2);
  try {
    memory.allocate(absurd);
    FAIL("nothing was thrown");
  } catch (const OutOfMemory& error) {
    REQUIRE(error.tier() == Tier::host);
    REQUIRE(error.bytes_asked() == absurd);
    REQUIRE(error.bytes_free() >= 0);
  }
}

TEST_CASE("CpuBackend has one memory, or two for tests") {
  const auto one = make_cpu_backend();
  REQUIRE(one->has_one_memory());
  REQUIRE(&one->memories().device == &one->memories().host);
  const auto two = make_cpu_backend({.threads = 1, .two_memories = true});
  REQUIRE_FALSE(two->has_one_memory());
  REQUIRE(&two->memories().device != &two->memories().host);
  REQUIRE(two->compute_dtype(DType::bf16) == DType::f32);
}

TEST_CASE("CpuBackend's streams run at the call") {
  const auto backend = make_cpu_backend({.threads = 1});
  const Stream stream = backend->make_stream();
  const Event event = backend->make_event();
  std::vector<int> to(4, -1);
  const std::vector<int> from = {1, 2, 3, 4};
  backend->copy(to.data(), from.data(), 16, stream);
  REQUIRE(to == from);
  backend->fill(to.data(), 0xff, 8, stream);
  REQUIRE(to == std::vector<int>{-1, -1, 3, 4});
  backend->copy(nullptr, nullptr, 0, stream);
  backend->fill(nullptr, 0, 0, stream);
  std::uint64_t first = 0;
  std::uint64_t second = 0;
  backend->stamp(&first, stream);
  backend->record(event, stream);
  backend->wait(stream, event);
  backend->synchronize(stream);
  backend->stamp(&second, stream);
  REQUIRE(backend->is_done(event));
  REQUIRE(backend->runs_at_call());
  REQUIRE((first > 0 && second >= first));
}

TEST_CASE("CpuBackend traces every operation as a span") {
  std::vector<std::string> events;
  TraceSink sink;
  sink.context = &events;
  sink.begin = [](void* context, const char* name, TraceLane) {
    static_cast<std::vector<std::string>*>(context)->push_back(std::string("+") + name);
  };
  sink.end = [](void* context, const char* name, TraceLane) {
    static_cast<std::vector<std::string>*>(context)->push_back(std::string("-") + name);
  };
  const auto backend = make_cpu_backend({.threads = 1, .trace = sink});
  std::vector<float> x(8, 1);
  const TensorView view = matrix_view(x.data(), DType::f32, 2, 4);
  backend->add({.a = view, .b = view, .out = view}, {});
  REQUIRE(x == std::vector<float>(8, 2));
  REQUIRE(events == std::vector<std::string>{"+CpuBackend::add", "-CpuBackend::add"});
}

TEST_CASE("CpuBackend runs on the host's threads") {
  struct Host {
    int loops = 0;
    static void run(void* context, index_t tasks, void* body_context, ParallelFor::Body body) {
      ++static_cast<Host*>(context)->loops;
      for (index_t task = tasks; task-- > 0;) body(body_context, task, static_cast<int>(task % 3));
    }
  } host;
  const auto backend =
      make_cpu_backend({.parallel_for = {.context = &host, .threads = 3, .run = Host::run}});
  std::vector<float> x(100'000, 1);
  const TensorView view = matrix_view(x.data(), DType::f32, 100, 1000);
  backend->add({.a = view, .b = view, .out = view}, {});
  REQUIRE(x == std::vector<float>(100'000, 2));
  REQUIRE(host.loops > 0);
  const CpuOptions no_threads{.parallel_for = {.context = &host, .threads = 0, .run = Host::run}};
  REQUIRE_THROWS_AS(make_cpu_backend(no_threads), InvalidArgument);
}
