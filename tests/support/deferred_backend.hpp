// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "deferred_work.hpp"
#include "spectx/backend.hpp"
#include "tracked_memory.hpp"

namespace spectx::test {

/// The streams of a device, in slow motion: what is put on a stream runs when the host waits for
/// it, when a stream that waits for it has to go on, or when run_some() happens to draw it. So what
/// no event orders runs in an odd order. Another backend does the work, on one stream.
class DeferredBackend final : public Backend {
 public:
  explicit DeferredBackend(Backend& worker, unsigned seed = 1)
      : DeferredBackend(worker, worker.memories(), seed) {}
  DeferredBackend(Backend& worker, Memories memories, unsigned seed = 1)
      : worker_(worker),
        stream_(worker.make_stream()),
        device_(memories.device),
        host_(memories.host),
        random_(seed) {}

  /// Runs `count` operations, each of a stream drawn by chance.
  void run_some(int count) {
    for (; count > 0; --count) {
      DeferredQueue& queue = *queues_[random_() % queues_.size()];
      if (!queue.work.empty()) queue.run_to(queue.done + 1);
    }
  }
  void run_all() {
    for (const auto& queue : queues_) queue->run_all();
    worker_.synchronize(stream_);
  }

  /// After so many more calls the device is lost: each one after it throws, as after a kernel's
  /// fault, and what is on the streams never runs.
  void lose_after(index_t calls) { calls_left_ = calls; }

  /// As a device's capture: what is put on any stream is kept, in this order, and does not run.
  using Graph = std::vector<std::function<void()>>;
  void begin_capture() { is_capturing_ = true; }
  Graph end_capture() {
    is_capturing_ = false;
    return std::exchange(captured_, {});
  }
  void launch(const Graph& graph, StreamView s) {
    for (const auto& operation : graph) put(s, operation);
  }

  void embed(const EmbedArgs& a, StreamView s) override { defer(&Backend::embed, a, s); }
  void matmul(const MatmulArgs& a, StreamView s) override { defer(&Backend::matmul, a, s); }
  void rms_norm(const RmsNormArgs& a, StreamView s) override { defer(&Backend::rms_norm, a, s); }
  void rope(const RopeArgs& a, StreamView s) override { defer(&Backend::rope, a, s); }
  void swiglu(const SwigluArgs& a, StreamView s) override { defer(&Backend::swiglu, a, s); }
  void add(const AddArgs& a, StreamView s) override { defer(&Backend::add, a, s); }
  void argmax(const ArgmaxArgs& a, StreamView s) override { defer(&Backend::argmax, a, s); }
  void append_rows(const AppendRowsArgs& a, StreamView s) override {
    defer(&Backend::append_rows, a, s);
  }
  void score(const ScoreArgs& a, StreamView s) override { defer(&Backend::score, a, s); }
  void top_k(const TopKArgs& a, StreamView s) override { defer(&Backend::top_k, a, s); }
  void coverage(const CoverageArgs& a, StreamView s) override { defer(&Backend::coverage, a, s); }
  void join_heads(const JoinHeadsArgs& a, StreamView s) override {
    defer(&Backend::join_heads, a, s);
  }
  void guard(const GuardArgs& a, StreamView s) override { defer(&Backend::guard, a, s); }
  void store_ring(const StoreRingArgs& a, StreamView s) override {
    defer(&Backend::store_ring, a, s);
  }
  void load_ring(const LoadRingArgs& a, StreamView s) override { defer(&Backend::load_ring, a, s); }
  void update_slots(const UpdateSlotsArgs& a, StreamView s) override {
    defer(&Backend::update_slots, a, s);
  }
  void forget_slots(const ForgetSlotsArgs& a, StreamView s) override {
    defer(&Backend::forget_slots, a, s);
  }
  void gather_rows(const GatherRowsArgs& a, StreamView s) override {
    defer(&Backend::gather_rows, a, s);
  }
  void scatter_rows(const ScatterRowsArgs& a, StreamView s) override {
    defer(&Backend::scatter_rows, a, s);
  }
  void move_rows(const MoveRowsArgs& a, StreamView s) override { defer(&Backend::move_rows, a, s); }
  void attend(const AttendArgs& a, StreamView s) override { defer(&Backend::attend, a, s); }

  Stream make_stream(StreamOptions = {}) override {
    queues_.push_back(std::make_unique<DeferredQueue>());
    return {*this, queues_.back().get()};
  }
  Event make_event() override { return {*this, new DeferredPlace}; }
  void destroy_stream(void* handle) noexcept override {
    if (calls_left_ > 0) queue({handle}).run_all();
    worker_.synchronize(stream_);
  }
  void destroy_event(void* handle) noexcept override { delete static_cast<DeferredPlace*>(handle); }

  void copy(void* to, const void* from, index_t bytes, StreamView s) override {
    const bool is_from_here = device_.has(from) || host_.has(from);
    if (is_capturing_ && !(is_from_here && (device_.has(to) || host_.has(to)))) {
      throw Unsupported("DeferredBackend::copy: a captured copy needs the backend's memory");
    }
    if (is_from_here) {
      put(s, [this, to, from, bytes] { worker_.copy(to, from, bytes, stream_); });
      return;
    }
    const auto* const begin = static_cast<const std::byte*>(from);
    put(s, [this, to, held = std::vector<std::byte>(begin, begin + bytes)] {
      worker_.copy(to, held.data(), static_cast<index_t>(held.size()), stream_);
    });
  }
  void fill(void* to, int byte, index_t bytes, StreamView s) override {
    put(s, [this, to, byte, bytes] { worker_.fill(to, byte, bytes, stream_); });
  }
  void stamp(std::uint64_t* device_ns, StreamView s) override {
    put(s, [this, device_ns] { worker_.stamp(device_ns, stream_); });
  }
  void record(EventView event, StreamView s) override {
    call();
    if (!is_capturing_) place(event) = {&queue(s), queue(s).put};
  }
  void wait(StreamView s, EventView event) override {
    call();
    const DeferredPlace until = place(event);
    if (is_capturing_ || until.queue == nullptr) return;
    put(s, [until] { until.queue->run_to(until.position); });
  }
  bool is_done(EventView event) override {
    call();
    const DeferredPlace until = place(event);
    if (until.queue != nullptr && until.queue->done < until.position) return false;
    worker_.synchronize(stream_);
    return true;
  }
  bool is_capturing(StreamView) override { return is_capturing_; }
  void synchronize(StreamView s) override {
    call();
    queue(s).run_all();
    worker_.synchronize(stream_);
  }

  Memories memories() override { return {device_, host_}; }
  bool has_one_memory() const noexcept override { return worker_.has_one_memory(); }
  index_t scratch_bytes(const ScratchShape& shape) const noexcept override {
    return worker_.scratch_bytes(shape);
  }
  bool runs_at_call() const noexcept override { return false; }
  DType compute_dtype(DType weights) const noexcept override {
    return worker_.compute_dtype(weights);
  }
  const TraceSink& trace() const noexcept override { return worker_.trace(); }

 private:
  static DeferredQueue& queue(StreamView s) { return *static_cast<DeferredQueue*>(s.handle); }
  static DeferredPlace& place(EventView e) { return *static_cast<DeferredPlace*>(e.handle); }
  void call() {
    if (calls_left_ == 0) throw Error("the device is lost");
    --calls_left_;
  }
  void put(StreamView s, std::function<void()> operation) {
    call();
    if (is_capturing_) return captured_.push_back(std::move(operation));
    queue(s).push(std::move(operation));
  }

  template <class Args>
  void defer(void (Backend::*operation)(const Args&, StreamView), const Args& args, StreamView s) {
    const auto held = std::make_shared<HeldArgs<Args>>(args);
    put(s, [this, operation, held] { std::invoke(operation, worker_, held->args, stream_); });
  }

  Backend& worker_;
  Stream stream_;
  TrackedMemory device_, host_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<DeferredQueue>> queues_;
  index_t calls_left_ = std::numeric_limits<index_t>::max();
  bool is_capturing_ = false;
  Graph captured_;
};

}  // namespace spectx::test
