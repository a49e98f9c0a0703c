// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstring>
#include <memory>

#include "spectx/backend.hpp"
#include "spectx/check_args.hpp"
#include "spectx/cpu/append_rows.hpp"
#include "spectx/cpu/argmax.hpp"
#include "spectx/cpu/attend.hpp"
#include "spectx/cpu/context.hpp"
#include "spectx/cpu/coverage.hpp"
#include "spectx/cpu/elementwise.hpp"
#include "spectx/cpu/embed.hpp"
#include "spectx/cpu/guard.hpp"
#include "spectx/cpu/matmul.hpp"
#include "spectx/cpu/memory.hpp"
#include "spectx/cpu/move.hpp"
#include "spectx/cpu/ring.hpp"
#include "spectx/cpu/rms_norm.hpp"
#include "spectx/cpu/rope.hpp"
#include "spectx/cpu/score.hpp"
#include "spectx/cpu/slots.hpp"
#include "spectx/cpu/top_k.hpp"

namespace spectx {

struct CpuOptions {
  int threads = 0;             // 0: one a core
  bool two_memories = false;   // keeps the tiers apart, as on a machine with a device: an oracle
  ParallelFor parallel_for{};  // the host's threads instead of own ones
  TraceSink trace{};
};

/// Every operation on the cores of this machine. Streams run at the call; activations are f32. Owns
/// its threads and its scratch, which is the host's memory; what Eigen packs products of more than
/// 8 rows into is malloc's, for the call. Not thread-safe.
class CpuBackend : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options)
      : options_(options),
        device_(Tier::device),
        host_(Tier::host),
        context_(options.threads, options.parallel_for, host_) {}

  void embed(const EmbedArgs& a, StreamView) override { run("CpuBackend::embed", a, cpu::embed); }
  void matmul(const MatmulArgs& a, StreamView) override {
    run("CpuBackend::matmul", a, cpu::matmul);
  }
  void rms_norm(const RmsNormArgs& a, StreamView) override {
    run("CpuBackend::rms_norm", a, cpu::rms_norm);
  }
  void rope(const RopeArgs& a, StreamView) override { run("CpuBackend::rope", a, cpu::rope); }
  void swiglu(const SwigluArgs& a, StreamView) override {
    run("CpuBackend::swiglu", a, cpu::swiglu);
  }
  void add(const AddArgs& a, StreamView) override { run("CpuBackend::add", a, cpu::add); }
  void argmax(const ArgmaxArgs& a, StreamView) override {
    run("CpuBackend::argmax", a, cpu::argmax);
  }
  void append_rows(const AppendRowsArgs& a, StreamView) override {
    run("CpuBackend::append_rows", a, cpu::append_rows);
  }
  void score(const ScoreArgs& a, StreamView) override { run("CpuBackend::score", a, cpu::score); }
  void top_k(const TopKArgs& a, StreamView) override { run("CpuBackend::top_k", a, cpu::top_k); }
  void coverage(const CoverageArgs& a, StreamView) override {
    run("CpuBackend::coverage", a, cpu::coverage);
  }
  void join_heads(const JoinHeadsArgs& a, StreamView) override {
    run("CpuBackend::join_heads", a, cpu::join_heads);
  }
  void guard(const GuardArgs& a, StreamView) override {
    run("CpuBackend::guard", a, [](const GuardArgs& args, cpu::Context&) { cpu::guard(args); });
  }
  void store_ring(const StoreRingArgs& a, StreamView) override {
    run("CpuBackend::store_ring", a, cpu::store_ring);
  }
  void load_ring(const LoadRingArgs& a, StreamView) override {
    run("CpuBackend::load_ring", a, cpu::load_ring);
  }
  void update_slots(const UpdateSlotsArgs& a, StreamView) override {
    run("CpuBackend::update_slots", a, cpu::update_slots);
  }
  void forget_slots(const ForgetSlotsArgs& a, StreamView) override {
    run("CpuBackend::forget_slots", a,
        [](const ForgetSlotsArgs& args, cpu::Context&) { cpu::forget_slots(args); });
  }
  void gather_rows(const GatherRowsArgs& a, StreamView) override {
    run("CpuBackend::gather_rows", a, cpu::gather_rows, TraceLane::copy);
  }
  void scatter_rows(const ScatterRowsArgs& a, StreamView) override {
    run("CpuBackend::scatter_rows", a, cpu::scatter_rows, TraceLane::copy);
  }
  void move_rows(const MoveRowsArgs& a, StreamView) override {
    run("CpuBackend::move_rows", a, cpu::move_rows, TraceLane::copy);
  }
  void attend(const AttendArgs& a, StreamView) override {
    run("CpuBackend::attend", a, cpu::attend);
  }

  Stream make_stream(StreamOptions = {}) override { return {*this, nullptr}; }
  Event make_event() override { return {*this, nullptr}; }
  void destroy_stream(void*) noexcept override {}
  void destroy_event(void*) noexcept override {}
  void copy(void* to, const void* from, index_t bytes, StreamView) override {
    check_memory(to, from, bytes);
    if (bytes > 0) std::memmove(to, from, static_cast<std::size_t>(bytes));
  }
  void fill(void* to, int byte, index_t bytes, StreamView) override {
    check_memory(to, to, bytes);
    if (bytes > 0) std::memset(to, byte, static_cast<std::size_t>(bytes));
  }
  void record(EventView, StreamView) override {}
  void wait(StreamView, EventView) override {}
  bool is_done(EventView) override { return true; }
  void synchronize(StreamView) override {}
  bool is_capturing(StreamView) override { return false; }
  void stamp(std::uint64_t* device_ns, StreamView) override {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    *device_ns = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
  }

  Memories memories() override { return {device_, options_.two_memories ? host_ : device_}; }
  index_t scratch_bytes(const ScratchShape&) const noexcept override { return 0; }
  bool has_one_memory() const noexcept override { return !options_.two_memories; }
  bool runs_at_call() const noexcept override { return true; }
  DType compute_dtype(DType) const noexcept override { return DType::f32; }
  const TraceSink& trace() const noexcept override { return options_.trace; }

 private:
  static constexpr OperationLimits kLimits{.has_half_activations = false};

  template <class Args, class Operation>
  void run(const char* name, const Args& args, Operation operation,
           TraceLane lane = TraceLane::compute) {
    check_args(args, kLimits);
    const TraceSpan span(options_.trace, name, lane);
    operation(args, context_);
  }

  CpuOptions options_;
  cpu::HeapMemory device_;
  cpu::HeapMemory host_;
  cpu::Context context_;
};

inline std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options = {}) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace spectx
