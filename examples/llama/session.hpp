// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "llama/decoder.hpp"
#include "llama/step_clock.hpp"
#include "spectx/io/head_file.hpp"
#include "spectx/memory_planner.hpp"
#include "spectx/prefetch_pipeline.hpp"
#include "support/captured_step.hpp"
#include "support/counting_memory.hpp"

namespace spectx::llama {

enum class Attention { full, selected };

struct SessionConfig {
  SelectionConfig selection;
  index_t max_length = 0;             // tokens of the request, its output included
  index_t chunk_rows = 512;           // prompt tokens of one step
  index_t device_bytes = 0;           // cap, the model's own memory included
  index_t host_bytes = 0;             // cap of the host tier
  std::optional<DType> host_dtype{};  // f8_e4m3 or i8; none: the rows' own
  bool captures = false;              // launches decode steps as graphs: needs a CUDA device
};

/// What one decode step read.
struct StepFigures {
  Path path = Path::dense;
  bool is_replayed = false;  // launched as a graph
  index_t rows = 0;          // that each KV head read
  GuardOutcome guard = GuardOutcome::kept;
  index_t kv_bytes = 0;   // rows that attention read, all layers
  index_t key_bytes = 0;  // the head's keys
  index_t hits = 0;       // selected rows that were on the device, of offloaded groups
  index_t misses = 0;     // selected rows that came from the host
  index_t moved_bytes = 0;
  double attend_seconds = 0;  // by the stream's own clock
  double head_seconds = 0;    // the retrieval head, selection included
  double coverage = 1;        // mean over KV heads of the head's softmax mass on the selection
  double least_coverage = 1;
};

struct MemoryFigures {
  index_t device_bytes = 0;  // allocated by pool, pipeline and head
  index_t host_bytes = 0;
  index_t planned_device_bytes = 0;
  index_t planned_host_bytes = 0;
};

/// One text on one model: the prompt's chunks, then steps of one token each. Calls block until the
/// result is there. Spans: Session::chunk, Session::step, Session::attend. Not thread-safe.
class Session {
 public:
  /// `head` may be null: then every step reads everything. Backend, weights and head must outlive
  /// it. Throws OutOfMemory, InvalidArgument for a selection that does not hold together.
  Session(Backend& backend, const LlamaWeights& weights, const io::LoadedHead* head,
          const SessionConfig& config);
  Session(Session&&) = delete;

  /// All of the prompt but its last token, which the first step takes. `progress(tokens)` is called
  /// after each chunk.
  void prefill(std::span<const std::int32_t> prompt,
               const std::function<void(index_t)>& progress = {});
  /// Goes back to where prefill ended.
  void rewind();

  /// Appends a token and computes the logits of the one that follows.
  void step(std::int32_t token, Attention attention);
  /// Of the last step: the likeliest token; [vocabulary] on the host, valid until the next step.
  std::int32_t likeliest();
  std::span<const float> logits();
  const StepFigures& figures() const noexcept { return figures_; }

  index_t length() const { return pool_.length(request_); }
  MemoryFigures memory() const;
  const PoolPlan& plan() const noexcept { return pool_.plan(); }

 private:
  /// A step of one shape, with a selection or without, and what it leaves where.
  struct Graph {
    support::CapturedStep step;
    std::vector<int> parts;  // of the clock's marks
    Selection selection;
  };

  static PlannerConfig planner_config(const Backend& backend, const LlamaWeights& weights,
                                      const io::LoadedHead* head, const SessionConfig& config);
  const Batch& schedule(std::span<const std::int32_t> tokens, bool is_dense);
  void run_layers(const Batch& batch, bool with_head, bool needs_output);
  void run_chunks(index_t first, const std::function<void(index_t)>& progress);
  void warm();
  void observe(index_t layer, const Batch& batch);
  Selection run_step(const Batch& batch, bool selects);
  bool can_replay(const Batch& batch, bool selects) const;
  Selection replay(const Batch& batch, bool selects);
  void read_figures(const Batch& batch, const Selection& selection, bool with_head);

  Backend& backend_;
  const LlamaWeights& weights_;
  Stream stream_;
  support::CountingMemory device_memory_;
  support::CountingMemory host_memory_;
  LlamaDecoder decoder_;
  StepClock clock_;
  MemoryPlanner planner_;
  KVPool pool_;
  std::optional<RetrievalHead> head_;
  PrefetchPipeline pipeline_;
  RequestId request_;
  index_t chunk_rows_;
  bool captures_;
  std::map<std::pair<StepShape, bool>, Graph> graphs_;
  std::vector<std::int32_t> prompt_;
  index_t head_steps_ = 0;  // steps since prefill whose features the head keeps
  TensorView logits_;
  Array<const std::int32_t> likeliest_{};  // [1] device
  std::vector<std::byte> raw_logits_;      // as the backend computes them
  std::vector<float> host_logits_;
  std::vector<float> coverage_;  // [kv_heads, 2]
  StepFigures figures_;
};

}  // namespace spectx::llama
