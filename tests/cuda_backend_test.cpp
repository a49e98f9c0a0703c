// SPDX-License-Identifier: Apache-2.0
// What a CUDA device has beside the contract of the operations: activations of half size, memories
// that run out, copies that do not wait.
#include "spectx/cuda/backend.hpp"

#include <cmath>

#include "catch.hpp"
#include "support/cuda_device.hpp"
#include "support/device_data.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

std::vector<float> rounded(const std::vector<float>& values, DType dtype) {
  std::vector<float> out;
  dispatch_dtype(dtype, [&]<class T>() {
    for (const float value : values) out.push_back(to_float(from_float<T>(value)));
  });
  return out;
}

constexpr index_t kRows = 5;
constexpr index_t kDim = 96;

/// Two operands and a result of one type; the operands hold values that every type has.
struct Operands {
  DeviceMatrix a, b, out;

  Operands(Backend& backend, DType dtype, DType exact)
      : a(backend, dtype, kRows, kDim, rounded(Random(1).normal(kRows * kDim), exact)),
        b(backend, dtype, kRows, kDim, rounded(Random(2).normal(kRows * kDim), exact)),
        out(backend, dtype, kRows, kDim) {}
};

/// What `operation` writes with activations of `dtype`, and of f32 rounded to `dtype`: the same
/// bits, since both sum in float.
void compare(Backend& backend, DType dtype, auto&& operation) {
  const Operands half(backend, dtype, dtype);
  const Operands single(backend, DType::f32, dtype);
  run_on(backend, [&](StreamView stream) {
    operation(half, stream);
    operation(single, stream);
  });
  REQUIRE(half.out.read() == rounded(single.out.read(), dtype));
}

}  // namespace

TEST_CASE("device_count and make_backend agree on what is there") {
  const int count = cu::device_count();
  REQUIRE(count >= 0);
  REQUIRE_THROWS_AS(cu::make_backend({.device = count}), InvalidArgument);
  REQUIRE_THROWS_AS(cu::make_backend({.device = -1}), InvalidArgument);
}

TEST_CASE("activations of half size give the rounded results of f32") {
  const auto b = device();
  if (b == nullptr) return;
  const DType dtype = GENERATE(DType::f16, DType::bf16);
  CAPTURE(dtype_name(dtype));
  compare(*b, dtype, [&](const Operands& x, StreamView s) {
    b->add({.a = x.a.view(), .b = x.b.view(), .out = x.out.view()}, s);
  });
  compare(*b, dtype, [&](const Operands& x, StreamView s) {
    b->swiglu({.gate = x.a.view(), .up = x.b.view(), .out = x.out.view()}, s);
  });
  const DeviceMatrix weight(*b, dtype, kDim, kDim, Random(3).normal(kDim * kDim));
  compare(*b, dtype, [&](const Operands& x, StreamView s) {
    b->rms_norm({.x = x.a.view(),
                 .weight = vector_view(weight.view().data, dtype, kDim),
                 .out = x.out.view()},
                s);
  });
  compare(*b, dtype, [&](const Operands& x, StreamView s) {
    for (index_t r = 0; r < kRows; ++r) {  // more at once go to cuBLAS
      b->matmul({.x = rows(x.a.view(), r, 1), .w = weight.view(), .out = rows(x.out.view(), r, 1)},
                s);
    }
  });
  const DeviceArray<std::int32_t> tokens(*b, {4, 0, -1, 95, 96});
  compare(*b, dtype, [&](const Operands& x, StreamView s) {
    b->embed({.table = weight.view(), .tokens = tokens, .out = x.out.view()}, s);
  });
}

TEST_CASE("matmul of many rows by cuBLAS, in every type") {
  const auto b = device();
  if (b == nullptr) return;
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16);
  const float beta = GENERATE(0.0F, 1.0F);
  const Padding padding = GENERATE(Padding{0, 0}, Padding{3, 1});
  const index_t rows = GENERATE(2, 8, 33);
  CAPTURE(dtype_name(dtype), beta, padding.columns, rows);
  const index_t in = 200;
  const index_t out = 72;
  // Sums of few small multiples of 1/64 are exact in every type.
  std::vector<float> x(at(rows * in), 0);
  for (index_t r = 0; r < rows; ++r) x[at(r * in + r * 5)] = static_cast<float>(r - 16) / 64;
  const DeviceMatrix a(*b, dtype, rows, in, x, padding);
  const DeviceMatrix w(*b, dtype, out, in, rounded(Random(4).sixtyfourths(out * in), dtype),
                       padding);
  const DeviceMatrix y(*b, dtype, rows, out, std::vector<float>(at(rows * out), 1), padding);
  run_on(*b, [&](StreamView s) {
    b->matmul({.x = a.view(), .w = w.view(), .out = y.view(), .beta = beta}, s);
  });
  std::vector<float> expected;
  for (index_t r = 0; r < rows; ++r) {
    for (index_t o = 0; o < out; ++o) {
      expected.push_back(beta + a.rounded()[at(r * in + r * 5)] * w.rounded()[at(o * in + r * 5)]);
    }
  }
  // cuBLAS may round the product before it adds, and again after.
  const double epsilon = dtype == DType::f32 ? 0x1p-23 : dtype == DType::f16 ? 0x1p-10 : 0x1p-7;
  const std::vector<float> got = y.read();
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, got[i], expected[i]);
    const double scale = std::abs(static_cast<double>(expected[i])) + static_cast<double>(beta);
    REQUIRE(std::abs(static_cast<double>(got[i]) - expected[i]) <= epsilon * scale);
  }
  REQUIRE(y.is_padding_intact());
}

TEST_CASE("memory that is not there is OutOfMemory, and the backend goes on") {
  const auto b = device();
  if (b == nullptr) return;
  constexpr index_t kTooMuch = index_t{1} << 50;
  const auto check = [&](MemoryResource& memory, Tier tier) {
    try {
      memory.allocate(kTooMuch);
      REQUIRE(false);
    } catch (const OutOfMemory& e) {
      REQUIRE(e.tier() == tier);
      REQUIRE(e.bytes_asked() == kTooMuch);
      REQUIRE(e.bytes_free() > 0);
    }
  };
  check(b->memories().device, Tier::device);
  check(b->memories().host, Tier::host);
  REQUIRE_THROWS_AS(b->memories().device.allocate(16, 4096), Unsupported);
  REQUIRE(DeviceArray<int>(*b, {1, 2, 3}).read() == std::vector{1, 2, 3});
}

TEST_CASE("a pageable source has been read when copy returns") {
  const auto b = device();
  if (b == nullptr) return;
  const index_t count = GENERATE(1, 1000, 4'000'000);
  CAPTURE(count);
  const DeviceArray<int> to(*b, std::vector<int>(at(count), 0));
  std::vector<int> source(at(count), 7);
  run_on(*b, [&](StreamView s) {
    b->copy(to.data(), source.data(), count * 4, s);
    std::fill(source.begin(), source.end(), 8);
  });
  REQUIRE(to.read() == std::vector<int>(at(count), 7));
}

TEST_CASE("small copies to the host arrive in order, however many are under way") {
  const auto b = device();
  if (b == nullptr) return;
  DeviceArray<int> from(*b, {0});
  std::vector<std::vector<int>> arrived(300, std::vector<int>(1, -1));
  run_on(*b, [&](StreamView s) {
    for (int i = 0; i < 300; ++i) {
      b->copy(from.data(), &i, 4, s);
      b->copy(arrived[static_cast<std::size_t>(i)].data(), from.data(), 4, s);
    }
  });
  for (int i = 0; i < 300; ++i) REQUIRE(arrived[static_cast<std::size_t>(i)][0] == i);
}

TEST_CASE("streams, events and stamps") {
  const auto b = device();
  if (b == nullptr) return;
  const Stream first = b->make_stream();
  const Stream second = b->make_stream({.high_priority = true});
  const Event event = b->make_event();
  REQUIRE(b->is_done(event));  // never recorded
  const DeviceArray<std::uint64_t> stamps(*b, {0, 0, 0});
  b->stamp(stamps.data(), first);
  b->record(event, first);
  b->wait(second, event);
  b->stamp(stamps.data() + 1, second);
  b->synchronize(second);
  REQUIRE(b->is_done(event));
  const std::vector<std::uint64_t> ns = stamps.read();
  REQUIRE(ns[0] > 0);
  REQUIRE(ns[1] >= ns[0]);
  REQUIRE(ns[2] == 0);
  REQUIRE_THROWS_AS(b->stamp(stamps.data(), {}), InvalidArgument);
}
