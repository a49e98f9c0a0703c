// SPDX-License-Identifier: Apache-2.0
#include "support/machine.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "spectx/cpu/backend.hpp"

namespace spectx::bench {

namespace {

int threads_asked() {
  const char* const threads = std::getenv("SPECTX_BENCH_THREADS");
  return threads == nullptr ? 0 : std::max(std::atoi(threads), 0);
}

}  // namespace

struct Machine::Threads {
  cpu::ThreadPool pool{threads_asked()};

  static void run(void* context, index_t tasks, void* body_context, ParallelFor::Body body) {
    static_cast<cpu::ThreadPool*>(context)->run(tasks, body_context, body);
  }
};

Machine& Machine::get() {
  static Machine machine;
  return machine;
}

Machine::Machine()
    : threads_(std::make_unique<Threads>()),
      backend_(make_cpu_backend({.parallel_for = {.context = &threads_->pool,
                                                  .threads = threads_->pool.threads(),
                                                  .run = Threads::run}})),
      bytes_per_second_(measure_reading()) {
  benchmark::AddCustomContext("threads", std::to_string(threads_->pool.threads()));
  benchmark::AddCustomContext("memory GB/s", std::to_string(bytes_per_second_ * 1e-9));
}

Machine::~Machine() = default;

double Machine::measure_reading() {
  constexpr index_t kParts = 64;
  constexpr index_t kPartFloats = index_t{1} << 20;
  const Buffer memory(backend_->memories().device, kParts * kPartFloats * 4);
  std::memset(memory.data(), 0, static_cast<std::size_t>(memory.bytes()));
  struct Reading {
    const float* from;
    std::vector<float> sums = std::vector<float>(static_cast<std::size_t>(kParts));
  } reading{reinterpret_cast<const float*>(memory.data())};
  double best = 0;
  for (int round = 0; round < 15; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    threads_->pool.run(kParts, &reading, [](void* context, index_t part, int) {
      Reading& r = *static_cast<Reading*>(context);
      const Eigen::Map<const Eigen::ArrayXf> floats(r.from + part * kPartFloats, kPartFloats);
      r.sums[static_cast<std::size_t>(part)] = floats.sum();
    });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(memory.bytes()) / took.count());
    benchmark::DoNotOptimize(reading.sums.data());
  }
  return best;
}

}  // namespace spectx::bench
