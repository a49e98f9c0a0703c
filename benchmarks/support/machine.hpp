// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "spectx/backend.hpp"

namespace spectx::bench {

/// The CPU backend that all benchmarks of a program share, and what its threads reach when they
/// only read memory one after the other: the 100 % of `%peak`.
class Machine {
 public:
  static Machine& get();
  ~Machine();

  Backend& backend() noexcept { return *backend_; }
  double bytes_per_second() const noexcept { return bytes_per_second_; }

 private:
  struct Threads;

  Machine();
  double measure_reading();

  std::unique_ptr<Threads> threads_;
  std::unique_ptr<Backend> backend_;
  double bytes_per_second_ = 0;
};

/// Memory that does not fit in any cache is what an operation meets inside a step: how many copies
/// of `bytes` a benchmark goes through in turn.
inline index_t copies_of(index_t bytes) {
  constexpr index_t kBeyondCaches = index_t{192} << 20;
  return bytes >= kBeyondCaches ? 1 : kBeyondCaches / bytes + 1;
}

/// Times `operation(iteration)`, warmed up, and reports the bytes that it has to move. `failure`:
/// of the validation, empty if the results are right.
template <class Operation>
void time(benchmark::State& state, index_t bytes, const std::string& failure,
          Operation&& operation) {
  if (!failure.empty()) {
    state.SkipWithError(failure.c_str());
    return;
  }
  index_t iteration = 0;
  for (; iteration < 3; ++iteration) operation(iteration);
  for (auto _ : state) operation(iteration++);
  using benchmark::Counter;
  const double moved = static_cast<double>(bytes);
  state.counters["bytes"] = moved;
  state.counters["GB/s"] = Counter(moved * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["%peak"] =
      Counter(100 * moved / Machine::get().bytes_per_second(), Counter::kIsIterationInvariantRate);
}

inline void report_flops(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace spectx::bench
