// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "eval/host_copy.hpp"
#include "llama/decoder.hpp"
#include "spectx/io/head_file.hpp"
#include "spectx/memory_planner.hpp"
#include "spectx/prefetch_pipeline.hpp"

namespace spectx::eval {

struct RunnerConfig {
  SelectionConfig selection;  // its budget is the largest that a step may use
  HeadConfig head;
  index_t max_length = 0;    // tokens of a text
  index_t chunk_rows = 512;  // prompt tokens of one step
  index_t device_bytes = 0;  // cap, the model's own memory included
};

/// What a step of a measurement does where a decode loop of one selector does always the same.
struct StepHooks {
  /// The selection of the step; its max_budget is the plan's budget.
  std::function<const Selection&(const Batch&)> select;
  /// Between a layer's append and its attend: may look, and change which rows the layer reads.
  std::function<void(index_t layer, const Batch&, const llama::LlamaDecoder::Qkv&, KVView&)> read;
  bool feeds_head = false;  // the head observes the step
};

/// The library's components around the decoder, for a text at a time whose end is run again and
/// again. Calls block. Not thread-safe.
class Runner {
 public:
  using Progress = std::function<void(index_t tokens)>;

  /// Everything must outlive it. Throws OutOfMemory, InvalidArgument.
  Runner(Backend& backend, const llama::LlamaWeights& weights, const io::LoadedHead& head,
         const RunnerConfig& config);
  Runner(Runner&&) = delete;

  /// Starts a text; all of `tokens` are read with full attention.
  void begin(std::span<const std::int32_t> tokens, const Progress& progress = {});
  /// Goes back to the first `length` tokens, at least 1. Always the same way, so that what follows
  /// does not depend on what was run before.
  void rewind(index_t length);
  /// Adds tokens that are read with full attention.
  void extend(std::span<const std::int32_t> tokens, const Progress& progress = {});
  /// Adds a token as a decode step. Returns the logits [vocabulary], valid until the next call.
  std::span<const float> step(std::int32_t token, const StepHooks& hooks);

  index_t length() const { return pool_.length(request_); }
  Backend& backend() noexcept { return backend_; }
  StreamView stream() const noexcept { return stream_; }
  const KVPool& pool() const noexcept { return pool_; }
  RetrievalHead& head() noexcept { return head_; }
  RequestId request() const noexcept { return request_; }

 private:
  const Batch& schedule(std::span<const std::int32_t> tokens, bool is_dense);
  void run_layers(const Batch& batch, const StepHooks& hooks, bool needs_output);

  Backend& backend_;
  const llama::LlamaWeights& weights_;
  Stream stream_;
  llama::LlamaDecoder decoder_;
  MemoryPlanner planner_;
  KVPool pool_;
  RetrievalHead head_;
  PrefetchPipeline pipeline_;
  RequestId request_;
  index_t chunk_rows_;
  std::vector<std::int32_t> tokens_;  // of the text so far
  HostCopy host_;
  std::vector<float> logits_;
};

}  // namespace spectx::eval
