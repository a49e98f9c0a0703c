// SPDX-License-Identifier: Apache-2.0
#include "eval/runner.hpp"

#include <algorithm>

namespace spectx::eval {
namespace {

PlannerConfig planner_config(const Backend& backend, const llama::LlamaWeights& weights,
                             const io::LoadedHead& head, const RunnerConfig& config) {
  const llama::DecoderConfig decoder{.max_step_rows = config.chunk_rows};
  const DType compute = backend.compute_dtype(weights.dtype());
  PlannerConfig c;
  c.device_bytes = config.device_bytes;
  c.model_bytes = weights.bytes() + llama::LlamaDecoder::bytes(weights.config(), decoder, compute);
  c.head_weight_bytes = head.storage.bytes();
  c.selection = config.selection;
  c.head = head.weights.shape;
  c.max_requests = 1;
  c.max_length = config.max_length;
  c.max_step_rows = config.chunk_rows;
  return for_backend(backend, llama::model_shape(weights.config(), weights.dtype()),
                     weights.dtype(), c);
}

}  // namespace

Runner::Runner(Backend& backend, const llama::LlamaWeights& weights, const io::LoadedHead& head,
               const RunnerConfig& config)
    : backend_(backend),
      weights_(weights),
      stream_(backend.make_stream()),
      decoder_(backend, weights, {.max_step_rows = config.chunk_rows}, stream_),
      planner_(llama::model_shape(weights.config(), weights.dtype()),
               planner_config(backend, weights, head, config)),
      pool_(backend, planner_.shape(), planner_.pool_plan(), backend.memories()),
      head_(backend, pool_, head.weights, config.head, backend.memories()),
      pipeline_(backend, pool_, {}),
      request_(pool_.open(config.max_length)),
      chunk_rows_(config.chunk_rows),
      host_(backend, stream_),
      logits_(static_cast<std::size_t>(weights.config().vocabulary)) {}

const Batch& Runner::schedule(std::span<const std::int32_t> tokens, bool is_dense) {
  pipeline_.apply(planner_.place(pool_.needs()), stream_);
  const BatchItem item{.request = request_, .tokens = tokens, .is_dense = is_dense};
  return pool_.schedule({&item, 1}, stream_);
}

/// A prompt chunk of which no logits are wanted ends with the last layer's keys and values.
void Runner::run_layers(const Batch& batch, const StepHooks& hooks, bool needs_output) {
  const index_t layers = weights_.config().layers;
  decoder_.embed(batch, stream_);
  for (index_t layer = 0; layer < layers; ++layer) {
    if (hooks.feeds_head) head_.observe(layer, batch, decoder_.hidden(), stream_);
    const llama::LlamaDecoder::Qkv qkv = decoder_.qkv(layer, batch, stream_);
    KVView rows = pipeline_.append(layer, qkv.k, qkv.v, stream_);
    if (layer + 1 == layers && !needs_output) return;
    if (hooks.read) hooks.read(layer, batch, qkv, rows);
    backend_.attend({.q = qkv.q, .kv = rows, .batch = &batch, .out = decoder_.attention_out()},
                    stream_);
    decoder_.finish(layer, stream_);
  }
}

void Runner::begin(std::span<const std::int32_t> tokens, const Progress& progress) {
  pool_.rewind(request_, 0, stream_);
  tokens_.clear();
  extend(tokens, progress);
}

void Runner::extend(std::span<const std::int32_t> tokens, const Progress& progress) {
  const StepHooks hooks{.select = {}, .read = {}, .feeds_head = true};
  for (std::size_t begin = 0; begin < tokens.size();) {
    const auto count = std::min(static_cast<std::size_t>(chunk_rows_), tokens.size() - begin);
    const Batch& batch = schedule(tokens.subspan(begin, count), true);
    pipeline_.begin_step(batch, head_.select(batch, stream_), stream_);
    run_layers(batch, hooks, false);
    pipeline_.end_step(stream_);
    backend_.synchronize(stream_);
    begin += count;
    if (progress) progress(static_cast<index_t>(count));
  }
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

/// The feature of the last row may no longer be kept: the row is run again.
void Runner::rewind(index_t length) {
  expects(length >= 1 && length <= static_cast<index_t>(tokens_.size()),
          "Runner::rewind: the text has no such place");
  const auto last = static_cast<std::size_t>(length - 1);
  const std::int32_t token = tokens_[last];
  pool_.rewind(request_, length - 1, stream_);
  tokens_.resize(last);
  extend({&token, 1});
}

std::span<const float> Runner::step(std::int32_t token, const StepHooks& hooks) {
  const Batch& batch = schedule({&token, 1}, false);
  pipeline_.begin_step(batch, hooks.select(batch), stream_);
  run_layers(batch, hooks, true);
  pipeline_.end_step(stream_);
  const TensorView logits = decoder_.last_logits(batch, stream_);
  host_.floats(logits_.data(), logits.data, logits.dtype, static_cast<index_t>(logits_.size()));
  tokens_.push_back(token);
  return logits_;
}

}  // namespace spectx::eval
