// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "llama/decoder.hpp"
#include "llama/step_clock.hpp"
#include "spectx/io/head_file.hpp"
#include "spectx/memory_planner.hpp"
#include "spectx/prefetch_pipeline.hpp"
#include "support/captured_step.hpp"

namespace spectx::bench {

struct EngineConfig {
  SelectionConfig selection;
  double hot_buffer = 2;
  index_t max_requests = 1;
  index_t max_length = 0;
  index_t chunk_rows = 2048;
  index_t device_bytes = 0;  // for weights, activations and everything of spectx
  index_t host_bytes = 0;
  std::optional<DType> host_dtype{};  // none: the rows' own
  int copy_blocks = 0;                // 0: the library chooses
  bool captures = false;              // steps run as CUDA graphs
  index_t fill_rows = 0;              // of a request, that fill_in() adds at most
  index_t graphs = 1;         // made before the first request: for max_requests, one less, ..
  bool offloads_all = false;  // every layer to the host, whatever the planner says
};

/// Parts of a step, in their order; the clock's marks.
enum Part : int { kSchedule, kHead, kSlots, kLinears, kAppend, kAttend, kLogits, kNumParts };
const char* part_name(int part) noexcept;

/// Where the selections of a step come from if not from the head.
class SelectionSource {
 public:
  virtual ~SelectionSource() = default;
  /// Before the step of `batch`.
  virtual void stage(const Batch& batch, StreamView stream) = 0;
  /// After the head has chosen; may be captured in a graph.
  virtual void write(const Batch& batch, const Selection& selection, StreamView stream) = 0;
};

/// A decode loop of many requests around the four components, with no call in a step that waits
/// for the device. Without a head every step reads everything: the dense path. Not thread-safe.
class Engine {
 public:
  /// Throws OutOfMemory, InvalidArgument.
  Engine(Backend& backend, const llama::LlamaWeights& weights, const io::LoadedHead* head,
         const EngineConfig& config, Memories memories);
  Engine(Engine&&) = delete;

  /// Whether another request of max_length may join; waits for room that moves make.
  bool make_room();
  /// Makes the graphs for requests above the budget, if steps are graphs and as far as there is
  /// room, so that no later step has to. Before the first request; waits.
  void make_graphs(SelectionSource* source);

  /// Opens a request of `context` tokens, and `final_length` in the end, that takes part in steps.
  /// `computes`: by a prefill of random tokens; else its rows are random values, and only the
  /// head's keys are made as in a prefill. Waits for them.
  RequestId open(index_t context, index_t final_length, bool computes);
  void close(RequestId request);

  /// The pieces of open() for a loop of one's own: a request without rows that takes no part yet,
  RequestId reserve(index_t final_length) { return pool_.open(final_length); }
  /// a prompt's next chunk (asynchronous),
  void add_chunk(RequestId request, index_t count, bool computes);
  /// `count` rows of random values for every request that takes part, of which only the head's keys
  /// are computed,
  void fill_in(index_t count, SelectionSource* source);
  /// at most so many: with those of a write batch they are inside the window.
  index_t most_filled() const {
    return std::min({config_.selection.recent_window - pool_.plan().write_batch,
                     config_.chunk_rows / config_.max_requests, config_.fill_rows});
  }
  /// its place in the steps, at their end, and none.
  void join(RequestId request) { requests_.push_back(request); }
  void leave(RequestId request) { std::erase(requests_, request); }

  /// Starts the moves that the planner asks for now.
  void place();
  /// The same, and waits for them.
  void place_and_wait();
  /// From now on place() sends the groups of a request to the host, one after the other, before it
  /// is parked; none: of no request.
  void empty(std::optional<RequestId> request) { emptied_ = request; }
  const std::optional<RequestId>& emptied() const noexcept { return emptied_; }
  /// Waits until every group is where the planner wants it: no step is as fast as fill_in().
  void settle();
  /// Fetches what the first step of all requests reads; waits.
  void warm(SelectionSource* source);
  /// Fetches what the next step of some requests reads, in the background.
  void warm(std::span<const RequestId> requests, SelectionSource* source);
  /// One token for every request that takes part. `clock` may be null.
  void step(SelectionSource* source, llama::StepClock* clock);

  void synchronize() { backend_.synchronize(stream_); }
  const std::vector<RequestId>& requests() const noexcept { return requests_; }
  std::size_t num_graphs() const noexcept { return graphs_.size(); }
  Backend& backend() noexcept { return backend_; }
  StreamView stream() const noexcept { return stream_; }
  const KVPool& pool() const noexcept { return pool_; }
  MemoryPlanner& planner() noexcept { return planner_; }
  PrefetchPipeline& pipeline() noexcept { return pipeline_; }
  bool saw_nan() const noexcept { return head_ && head_->saw_nan(); }

  /// What the planner is told for these weights.
  static PlannerConfig planner_config(const Backend& backend, const llama::LlamaWeights& weights,
                                      const io::LoadedHead* head, const EngineConfig& config);

 private:
  Placement asked_placement();
  const Batch& schedule(std::span<const RequestId> requests, index_t tokens = 1);
  /// What `source` (may be null) needs of the host, before select(), which can be captured.
  void stage(const Batch& batch, SelectionSource* source);
  Selection select(const Batch& batch, SelectionSource* source);
  void append_rows(const Batch& batch, const Selection& selection, bool computes);
  void feed_tokens(const Batch& batch);
  void run_step(const Batch& batch, SelectionSource* source, llama::StepClock* clock);
  bool can_replay(const Batch& batch) const;

  Backend& backend_;
  const llama::LlamaWeights& weights_;
  EngineConfig config_;
  Stream stream_;
  llama::LlamaDecoder decoder_;
  MemoryPlanner planner_;
  KVPool pool_;
  std::optional<RetrievalHead> head_;
  PrefetchPipeline pipeline_;
  Buffer random_rows_;  // [chunk_rows, k | v of all heads], of the activations' type
  TensorView random_k_, random_v_;
  std::vector<std::int32_t> tokens_;  // random
  std::vector<RequestId> requests_;
  std::optional<RequestId> emptied_;
  std::vector<std::int32_t> targets_;
  std::vector<BatchItem> items_;
  Array<const std::int32_t> next_tokens_{};  // device, of the step before
  std::vector<RequestId> next_of_;           // the requests whose they are
  std::map<std::pair<StepShape, SelectionSource*>, support::CapturedStep> graphs_;
};

}  // namespace spectx::bench
