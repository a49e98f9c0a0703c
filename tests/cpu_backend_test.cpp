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

TEST_CASE("an operation on a type that holds no rows says so") {
  const auto backend = make_cpu_backend({.threads = 1});
  std::vector<float> x(4);
  const TensorView view = matrix_view(x.data(), DType::f32, 1, 4);
  const TensorView bytes = matrix_view(x.data(), DType::i8, 1, 4);
  REQUIRE_THROWS_AS(
      backend->matmul({.x = view, .w = bytes, .out = matrix_view(x.data(), DType::f32, 1, 1)}, {}),
      Unsupported);
}

TEST_CASE("what a host hands to an operation is of the type and shape that it needs") {
  const auto backend = make_cpu_backend({.threads = 1});
  std::vector<float> memory(64);
  const auto matrix = [&](index_t rows, index_t cols, DType dtype = DType::f32) {
    return matrix_view(memory.data(), dtype, rows, cols);
  };
  const TensorView half = matrix(2, 4, DType::bf16);
  std::vector<std::int32_t> next(2);
  const auto refuses = [](const char* operation, auto&& call) {
    CAPTURE(operation);
    std::string message;
    try {
      call();
    } catch (const InvalidArgument& error) {
      message = error.what();
    }
    REQUIRE(message.starts_with(operation));
  };
  refuses("embed", [&] { backend->embed({matrix(3, 4), {}, {}, half}, {}); });
  refuses("matmul", [&] { backend->matmul({matrix(2, 4), matrix(3, 4), matrix(2, 4)}, {}); });
  refuses("matmul", [&] { backend->matmul({half, matrix(3, 4), matrix(2, 3)}, {}); });
  const TensorView weight = vector_view(memory.data(), DType::f32, 4);
  refuses("rms_norm", [&] { backend->rms_norm({half, weight, half}, {}); });
  refuses("rms_norm", [&] { backend->rms_norm({matrix(2, 3), weight, matrix(2, 3)}, {}); });
  refuses("rope", [&] { backend->rope({.x = matrix(2, 4), .position = {}, .frequency = {}}, {}); });
  refuses("swiglu, add", [&] { backend->add({half, half, half}, {}); });
  refuses("swiglu, add", [&] { backend->swiglu({matrix(2, 4), matrix(2, 3), matrix(2, 4)}, {}); });
  refuses("argmax", [&] { backend->argmax({half, {next.data(), 2}}, {}); });
  refuses("argmax", [&] { backend->argmax({matrix(3, 4), {next.data(), 2}}, {}); });

  Batch batch;
  batch.num_rows = 2;
  KVView rows;
  rows.kv_heads = 2;
  rows.k_dim = 4;
  rows.v_dim = 6;
  const auto attend = [&](TensorView q, TensorView out) {
    backend->attend({.q = q, .kv = rows, .batch = &batch, .out = out}, {});
  };
  const TensorView q = split_heads(matrix(2, 16), 4, 4);
  const TensorView out = split_heads(matrix(2, 24), 4, 6);
  refuses("attend", [&] { attend(split_heads(matrix(2, 16, DType::bf16), 4, 4), out); });
  refuses("attend", [&] { attend(matrix(2, 16), out); });
  refuses("attend", [&] { attend(split_heads(matrix(2, 12), 3, 4), out); });
  refuses("attend", [&] { attend(split_heads(matrix(1, 16), 4, 4), out); });
  refuses("attend", [&] { attend(q, split_heads(matrix(2, 16), 4, 4)); });
  refuses("attend", [&] { attend(q, split_heads(matrix(2, 24, DType::f16), 4, 6)); });
}
