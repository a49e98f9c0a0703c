// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <numeric>
#include <span>
#include <thread>
#include <vector>

#include "bench/trace.hpp"
#include "spectx/cuda/backend.hpp"
#include "spectx/memory_planner.hpp"
#include "spectx/prefetch_pipeline.hpp"

namespace spectx::bench {

/// Llama-3.1-8B's cache in bf16, and how it is used.
struct SceneConfig {
  index_t requests = 1;
  index_t context = 8192;
  double hot_buffer = 2;
  index_t write_batch = 32;
  index_t steps = 64;  // that can be run
};

/// What `PipelineScene::run` saw.
struct SceneFigures {
  index_t bytes = 0;                      // fetched
  index_t steps = 0;                      // whose report was read
  double transfer_us = 0, step_us = 0;    // sums
  std::vector<double> first_transfer_us;  // from begin_step to the first gather
};

/// Decode steps of KVPool and PrefetchPipeline alone, with every group of every request offloaded
/// and the recorded selections: a step is its slots, its transfers, append and attend of all
/// layers. Rows are constant: their values do not matter here.
class PipelineScene {
 public:
  PipelineScene(const RecordedTrace& trace, const SceneConfig& config)
      : config_(config),
        backend_(cu::make_backend({.trace = sink()})),
        stream_(backend_->make_stream()),
        planner_(shape(), planner_config(config)),
        pool_(*backend_, planner_.shape(), planner_.pool_plan(), backend_->memories()),
        pipeline_(*backend_, pool_, {}),
        rows_(backend_->memories().device, kChunk * kQueryHeads * kDim * 2),
        out_(backend_->memories().device, config.requests * kQueryHeads * kDim * 2),
        ids_(backend_->memories().device, config.steps * step_entries() * 4),
        counts_(backend_->memories().device, config.requests * kKVHeads * 4),
        tokens_(static_cast<std::size_t>(kChunk), 1),
        turns_{backend_->make_event(), backend_->make_event()} {
    backend_->fill(rows_.data(), 0x3c, rows_.bytes(), stream_);
    write_selections(trace);
    for (index_t r = 0; r < config.requests; ++r) requests_.push_back(fill());
    if (config.steps == 0) return;
    const Batch& batch = schedule();
    pipeline_.warm(batch, selection(0), stream_);
    wait();
  }

  /// The next `steps`; the host stays at most two ahead of the device. `attends`: attention runs,
  /// else nothing hides the transfers.
  SceneFigures run(index_t steps, bool attends) {
    figures_ = {};
    for (index_t n = 0; n < steps; ++n, ++step_) {
      Event& turn = turns_[static_cast<std::size_t>(n % 2)];
      while (n >= 2 && !backend_->is_done(turn)) {
      }
      note_report();
      put_step(attends);
      backend_->record(turn, stream_);
    }
    wait();
    note_report();
    return figures_;
  }

  Backend& backend() { return *backend_; }
  StreamView stream() const { return stream_; }

 private:
  static constexpr index_t kLayers = 32, kQueryHeads = 32, kKVHeads = 8, kDim = 128;
  static constexpr index_t kChunk = 2048;  // rows of a step of the prompt

  static SelectionConfig rule() { return {.budget = 2048, .sinks = 4, .recent_window = 64}; }
  static ModelShape shape() {
    return {.layers = kLayers,
            .query_heads = kQueryHeads,
            .kv_heads = kKVHeads,
            .k_dim = kDim,
            .v_dim = kDim,
            .hidden = kQueryHeads * kDim,
            .vocabulary = 128256,
            .dtype = DType::bf16,
            .rope = {},
            .attention = {}};
  }
  static PlannerConfig planner_config(const SceneConfig& config) {
    PlannerConfig c;
    c.device_bytes = index_t{56} << 30;
    c.host_bytes = config.requests * (config.context + config.steps + 128) * (index_t{128} << 10);
    c.force_host_tier = true;
    c.selection = rule();
    c.max_requests = config.requests;
    c.max_length = config.context + config.steps + 1;
    c.max_step_rows = kChunk;
    c.hot_buffer = config.hot_buffer;
    c.write_batch = config.write_batch;
    return c;
  }
  TraceSink sink() {
    TraceSink sink;
    sink.context = this;
    sink.device = [](void* scene, const DeviceSpan& span) {
      static_cast<PipelineScene*>(scene)->note(span);
    };
    return sink;
  }
  void note(const DeviceSpan& span) {
    if (span.group < 0) step_begin_ns_ = span.begin_ns;
    if (span.group == 0 && span.lane == TraceLane::copy) {
      figures_.first_transfer_us.push_back(static_cast<double>(span.begin_ns - step_begin_ns_) *
                                           1e-3);
    }
  }
  void note_report() {
    const StepReport& report = pipeline_.report();
    if (report.step < 0 || report.step == reported_ || report.path == Path::dense) return;
    reported_ = report.step;
    figures_.bytes += report.bytes;
    figures_.transfer_us += report.transfer_us;
    figures_.step_us += report.step_us;
    ++figures_.steps;
  }

  index_t step_entries() const { return config_.requests * kKVHeads * rule().budget; }
  void write_selections(const RecordedTrace& trace) {
    const ReplayShape replay{.selection = rule(), .kv_heads = kKVHeads};
    std::vector<std::int32_t> ids(static_cast<std::size_t>(step_entries()));
    for (index_t step = 0; step < config_.steps; ++step) {
      std::int32_t* to = ids.data();
      for (index_t i = 0; i < config_.requests * kKVHeads; ++i, to += rule().budget) {
        scaled_selection(trace, replay, i / kKVHeads, i % kKVHeads, config_.context + step + 1, to);
      }
      backend_->copy(ids_.data() + step * step_entries() * 4, ids.data(), step_entries() * 4,
                     stream_);
      backend_->synchronize(stream_);
    }
    const std::vector<std::int32_t> counts(static_cast<std::size_t>(config_.requests * kKVHeads),
                                           static_cast<std::int32_t>(rule().budget));
    backend_->copy(counts_.data(), counts.data(), counts_.bytes(), stream_);
    backend_->synchronize(stream_);
  }
  Selection selection(index_t step) const {
    Selection s;
    s.ids = {reinterpret_cast<std::int32_t*>(ids_.data()) + step * step_entries(), step_entries()};
    s.counts = {reinterpret_cast<std::int32_t*>(counts_.data()), config_.requests * kKVHeads};
    s.max_budget = rule().budget;
    return s;
  }

  /// A request of `context` tokens: made on the device, then sent to the host tier.
  RequestId fill() {
    const RequestId id = pool_.open(config_.context + config_.steps + 1);
    for (index_t done = 0; done < config_.context; done += kChunk) {
      const index_t count = std::min(kChunk, config_.context - done);
      const BatchItem item{id, std::span(tokens_).first(static_cast<std::size_t>(count)), true};
      const Batch& batch = pool_.schedule(std::span(&item, 1), stream_);
      pipeline_.begin_step(batch, {}, stream_);
      for (index_t layer = 0; layer < kLayers; ++layer) append(layer, batch);
      pipeline_.end_step(stream_);
    }
    // One group after the other: the arena has no room for the slots of all.
    for (int tries = 0; pool_.resident_groups(id) > 0; ++tries) {
      expects(tries < 60'000, "PipelineScene: a group does not leave");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the host tier grows meanwhile
      std::vector<std::int32_t> target;
      for (const RequestNeed& need : pool_.needs()) {
        target.push_back(std::max(need.resident_groups - 1, 0));
      }
      pipeline_.apply({.needs = pool_.needs(), .resident_groups = target}, stream_);
      wait();
    }
    return id;
  }
  KVView append(index_t layer, const Batch& batch) {
    const TensorView rows = matrix_view(rows_.data(), DType::bf16, batch.num_rows, kKVHeads * kDim);
    const TensorView heads = split_heads(rows, kKVHeads, kDim);
    return pipeline_.append(layer, heads, heads, stream_);
  }
  const Batch& schedule() {
    items_.clear();
    for (const RequestId id : requests_) items_.push_back({id, std::span(tokens_).first(1)});
    return pool_.schedule(items_, stream_);
  }
  void put_step(bool attends) {
    const Batch& batch = schedule();
    pipeline_.begin_step(batch, selection(step_), stream_);
    const auto heads = [&](const Buffer& b) {
      return split_heads(matrix_view(b.data(), DType::bf16, batch.num_rows, kQueryHeads * kDim),
                         kQueryHeads, kDim);
    };
    for (index_t layer = 0; layer < kLayers; ++layer) {
      const KVView view = append(layer, batch);
      if (!attends) continue;
      backend_->attend({.q = heads(rows_), .kv = view, .batch = &batch, .out = heads(out_)},
                       stream_);
    }
    pipeline_.end_step(stream_);
  }
  void wait() {
    backend_->synchronize(stream_);
    pipeline_.wait_ready();
  }

  SceneConfig config_;
  std::unique_ptr<Backend> backend_;
  Stream stream_;
  MemoryPlanner planner_;
  KVPool pool_;
  PrefetchPipeline pipeline_;
  Buffer rows_, out_;
  Buffer ids_;     // [steps, requests, kv_heads, budget]
  Buffer counts_;  // [requests, kv_heads]
  std::vector<std::int32_t> tokens_;
  std::array<Event, 2> turns_;
  std::vector<RequestId> requests_;
  std::vector<BatchItem> items_;
  index_t step_ = 0;
  index_t reported_ = -1;
  std::int64_t step_begin_ns_ = 0;
  SceneFigures figures_;
};

}  // namespace spectx::bench
