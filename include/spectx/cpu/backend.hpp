// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstring>
#include <memory>

#include "spectx/backend.hpp"
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

  void embed(const EmbedArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::embed");
    cpu::embed(a, context_);
  }
  void matmul(const MatmulArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::matmul");
    cpu::matmul(a, context_);
  }
  void rms_norm(const RmsNormArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::rms_norm");
    cpu::rms_norm(a, context_);
  }
  void rope(const RopeArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::rope");
    cpu::rope(a, context_);
  }
  void swiglu(const SwigluArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::swiglu");
    cpu::swiglu(a, context_);
  }
  void add(const AddArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::add");
    cpu::add(a, context_);
  }
  void argmax(const ArgmaxArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::argmax");
    cpu::argmax(a, context_);
  }
  void append_rows(const AppendRowsArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::append_rows");
    cpu::append_rows(a, context_);
  }
  void score(const ScoreArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::score");
    cpu::score(a, context_);
  }
  void top_k(const TopKArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::top_k");
    cpu::top_k(a, context_);
  }
  void coverage(const CoverageArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::coverage");
    cpu::coverage(a, context_);
  }
  void join_heads(const JoinHeadsArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::join_heads");
    cpu::join_heads(a, context_);
  }
  void guard(const GuardArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::guard");
    cpu::guard(a);
  }
  void store_ring(const StoreRingArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::store_ring");
    cpu::store_ring(a, context_);
  }
  void load_ring(const LoadRingArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::load_ring");
    cpu::load_ring(a, context_);
  }
  void update_slots(const UpdateSlotsArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::update_slots");
    cpu::update_slots(a, context_);
  }
  void forget_slots(const ForgetSlotsArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::forget_slots");
    cpu::forget_slots(a);
  }
  void gather_rows(const GatherRowsArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::gather_rows", TraceLane::copy);
    cpu::gather_rows(a, context_);
  }
  void scatter_rows(const ScatterRowsArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::scatter_rows", TraceLane::copy);
    cpu::scatter_rows(a, context_);
  }
  void move_rows(const MoveRowsArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::move_rows", TraceLane::copy);
    cpu::move_rows(a, context_);
  }
  void attend(const AttendArgs& a, StreamView) override {
    const TraceSpan span(options_.trace, "CpuBackend::attend");
    cpu::attend(a, context_);
  }

  Stream make_stream(StreamOptions = {}) override { return {*this, nullptr}; }
  Event make_event() override { return {*this, nullptr}; }
  void destroy_stream(void*) noexcept override {}
  void destroy_event(void*) noexcept override {}
  void copy(void* to, const void* from, index_t bytes, StreamView) override {
    if (bytes > 0) std::memmove(to, from, static_cast<std::size_t>(bytes));
  }
  void fill(void* to, int byte, index_t bytes, StreamView) override {
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
  CpuOptions options_;
  cpu::HeapMemory device_;
  cpu::HeapMemory host_;
  cpu::Context context_;
};

inline std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options = {}) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace spectx
