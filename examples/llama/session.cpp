// SPDX-License-Identifier: Apache-2.0
#include "llama/session.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "spectx/dispatch.hpp"
#include "spectx/half.hpp"

namespace spectx::llama {
namespace {

// Parts of a step.
enum Part : int { kRest, kHead, kAttend, kNumParts };

}  // namespace

PlannerConfig Session::planner_config(const Backend& backend, const LlamaWeights& weights,
                                      const io::LoadedHead* head, const SessionConfig& config) {
  const DecoderConfig decoder{.max_step_rows = config.chunk_rows};
  const DType compute = backend.compute_dtype(weights.dtype());
  PlannerConfig c;
  c.device_bytes = config.device_bytes;
  c.host_bytes = config.host_bytes;
  c.host_dtype = config.host_dtype;
  c.model_bytes = weights.bytes() + LlamaDecoder::bytes(weights.config(), decoder, compute);
  c.selection = config.selection;
  c.max_requests = 1;
  c.max_length = config.max_length;
  c.max_step_rows = config.chunk_rows;
  c.write_batch = std::max<index_t>(1, std::min(c.write_batch, c.selection.recent_window - 1));
  if (head != nullptr) {
    c.head = head->weights.shape;
    c.head_weight_bytes = head->storage.bytes();
  }
  return for_backend(backend, model_shape(weights.config(), weights.dtype()), weights.dtype(), c);
}

Session::Session(Backend& backend, const LlamaWeights& weights, const io::LoadedHead* head,
                 const SessionConfig& config)
    : backend_(backend),
      weights_(weights),
      stream_(backend.make_stream()),
      device_memory_(backend.memories().device),
      host_memory_(backend.memories().host),
      decoder_(backend, weights, {.max_step_rows = config.chunk_rows}, stream_),
      clock_(backend, 4 * weights.config().layers + 4),
      planner_(model_shape(weights.config(), weights.dtype()),
               planner_config(backend, weights, head, config)),
      pool_(backend, planner_.shape(), planner_.pool_plan(), {device_memory_, host_memory_}),
      pipeline_(backend, pool_, {}),
      request_(pool_.open(config.max_length)),
      chunk_rows_(config.chunk_rows),
      captures_(config.captures),
      raw_logits_(static_cast<std::size_t>(weights.config().vocabulary *
                                           dtype_bytes(backend.compute_dtype(weights.dtype())))),
      host_logits_(static_cast<std::size_t>(weights.config().vocabulary)),
      coverage_(static_cast<std::size_t>(2 * weights.config().kv_heads)) {
  if (head != nullptr) {
    head_.emplace(backend, pool_, head->weights, HeadConfig{},
                  Memories{device_memory_, host_memory_});
  }
}

const Batch& Session::schedule(std::span<const std::int32_t> tokens, bool is_dense) {
  pipeline_.apply(planner_.place(pool_.needs()), stream_);
  const BatchItem item{.request = request_, .tokens = tokens, .is_dense = is_dense};
  return pool_.schedule({&item, 1}, stream_);
}

void Session::observe(index_t layer, const Batch& batch) {
  const auto& taps = head_->weights().feature_layers;
  if (std::find(taps.begin(), taps.end(), layer) == taps.end()) return;
  clock_.mark(kHead, stream_);
  head_->observe(layer, batch, decoder_.hidden(), stream_);
  clock_.mark(kRest, stream_);
}

/// A prompt chunk of which no logits are wanted ends with the last layer's keys and values.
void Session::run_layers(const Batch& batch, bool with_head, bool needs_output) {
  const index_t layers = weights_.config().layers;
  decoder_.embed(batch, stream_);
  for (index_t layer = 0; layer < layers; ++layer) {
    if (with_head) observe(layer, batch);
    const auto [q, k, v] = decoder_.qkv(layer, batch, stream_);
    const KVView rows = pipeline_.append(layer, k, v, stream_);
    if (layer + 1 == layers && !needs_output) return;
    {
      const TraceSpan span(backend_.trace(), "Session::attend");
      clock_.mark(kAttend, stream_);
      backend_.attend({.q = q, .kv = rows, .batch = &batch, .out = decoder_.attention_out()},
                      stream_);
      clock_.mark(kRest, stream_);
    }
    decoder_.finish(layer, stream_);
  }
}

void Session::run_chunks(index_t first, const std::function<void(index_t)>& progress) {
  const std::span<const std::int32_t> tokens(prompt_.data(), prompt_.size() - 1);
  for (auto begin = static_cast<std::size_t>(first); begin < tokens.size();) {
    const TraceSpan span(backend_.trace(), "Session::chunk");
    const auto count = std::min(static_cast<std::size_t>(chunk_rows_), tokens.size() - begin);
    const Batch& batch = schedule(tokens.subspan(begin, count), true);
    clock_.begin_step();
    Selection everything;
    if (head_) everything = head_->select(batch, stream_);
    pipeline_.begin_step(batch, everything, stream_);
    run_layers(batch, head_.has_value(), false);
    pipeline_.end_step(stream_);
    backend_.synchronize(stream_);
    begin += count;
    if (progress) progress(static_cast<index_t>(begin));
  }
  head_steps_ = 0;
  warm();
}

/// So that the first step has no misses.
void Session::warm() {
  if (!head_ || !pool_.plan().has_host_tier()) return;
  const Batch& batch = schedule({&prompt_.back(), 1}, false);
  pipeline_.warm(batch, head_->select(batch, stream_), stream_);
  pipeline_.wait_ready();
}

void Session::prefill(std::span<const std::int32_t> prompt,
                      const std::function<void(index_t)>& progress) {
  expects(!prompt.empty(), "Session::prefill: the prompt is empty");
  expects(length() == 0, "Session::prefill: the session has a text already");
  prompt_.assign(prompt.begin(), prompt.end());
  run_chunks(0, progress);
}

void Session::rewind() {
  const auto prefilled = static_cast<index_t>(prompt_.size()) - 1;
  // The feature of the last prefilled row is kept for that many steps; where no step selects, none
  // is needed.
  const bool is_fed = head_steps_ < HeadLayout::kRingRows ||
                      pool_.plan().max_length <= pool_.plan().selection.budget;
  if (is_fed) {
    pool_.rewind(request_, prefilled, stream_);
    return warm();
  }
  // A row that is run again makes its feature anew.
  const index_t first = std::max<index_t>(0, prefilled - 1);
  pool_.rewind(request_, first, stream_);
  run_chunks(first, {});
}

void Session::step(std::int32_t token, Attention attention) {
  const TraceSpan span(backend_.trace(), "Session::step");
  const bool selects = attention == Attention::selected && head_.has_value();
  const Batch& batch = schedule({&token, 1}, !selects);
  figures_ = {.is_replayed = can_replay(batch, selects)};
  const Selection selection =
      figures_.is_replayed ? replay(batch, selects) : run_step(batch, selects);
  clock_.send(stream_);
  backend_.synchronize(stream_);
  head_steps_ += selects ? 1 : 0;
  read_figures(batch, selection, selects);
}

/// Puts a step on the stream.
Selection Session::run_step(const Batch& batch, bool selects) {
  clock_.begin_step();
  clock_.mark(kHead, stream_);
  Selection selection;
  if (selects) selection = head_->select(batch, stream_);
  clock_.mark(kRest, stream_);
  pipeline_.begin_step(batch, selection, stream_);
  run_layers(batch, selects, true);
  pipeline_.end_step(stream_);
  logits_ = decoder_.last_logits(batch, stream_);
  likeliest_ = decoder_.likeliest(logits_, stream_);
  return selection;
}

bool Session::can_replay(const Batch& batch, bool selects) const {
  return captures_ && (!selects || head_->can_replay(batch)) && pipeline_.can_replay(batch);
}

/// The same, as one graph.
Selection Session::replay(const Batch& batch, bool selects) {
  const auto shape = std::pair(batch.shape(), selects);
  auto graph = graphs_.find(shape);
  if (graph == graphs_.end()) {
    Selection selection;
    support::CapturedStep step(stream_, [&] {
      selection = run_step(batch, selects);
      pipeline_.join(stream_);
    });
    graph = graphs_.emplace(shape, Graph{std::move(step), clock_.parts(), selection}).first;
  }
  clock_.begin_replay(graph->second.parts);
  if (selects) head_->begin_replay(batch);
  pipeline_.begin_replay(batch, shape.first);
  graph->second.step.launch(stream_);
  pipeline_.end_step(stream_);
  return graph->second.selection;
}

void Session::read_figures(const Batch& batch, const Selection& selection, bool with_head) {
  const ModelShape& shape = pool_.shape();
  const ScheduledItem& item = batch.items.front();
  const index_t length = item.first + item.rows;
  const bool selects = item.selects && with_head;
  std::int32_t rows = kAllTokens;
  auto guard = GuardOutcome::kept;
  if (selects) {
    const auto read = [&](void* to, const void* from, index_t bytes) {
      backend_.copy(to, from, bytes, stream_);
    };
    read(&rows, selection.counts.data, sizeof(rows));
    if (selection.outcomes.size > 0) read(&guard, selection.outcomes.data, sizeof(guard));
    read(coverage_.data(), selection.coverage.data, static_cast<index_t>(coverage_.size()) * 4);
    backend_.synchronize(stream_);
  }
  if (rows == kAllTokens) rows = static_cast<std::int32_t>(length);
  const StepReport& report = pipeline_.report();
  figures_ = {.path = report.path,
              .is_replayed = figures_.is_replayed,
              .rows = rows,
              .guard = guard,
              .kv_bytes = rows * shape.kv_heads * shape.row_bytes() * shape.cached_layers(),
              .key_bytes = item.selects ? length * pool_.layout().key_row_bytes : 0,
              .hits = report.hits,
              .misses = report.misses,
              .moved_bytes = report.bytes};
  std::array<double, kNumParts> seconds{};
  clock_.add_to(seconds);
  figures_.attend_seconds = seconds[kAttend];
  figures_.head_seconds = seconds[kHead];
  if (!selects) return;
  double sum = 0;
  for (std::size_t h = 0; h < coverage_.size(); h += 2) {
    figures_.least_coverage = std::min(figures_.least_coverage, static_cast<double>(coverage_[h]));
    sum += static_cast<double>(coverage_[h + 1]);
  }
  figures_.coverage = 2 * sum / static_cast<double>(coverage_.size());
}

std::int32_t Session::likeliest() {
  std::int32_t token = 0;
  backend_.copy(&token, likeliest_.data, sizeof(token), stream_);
  backend_.synchronize(stream_);
  return token;
}

std::span<const float> Session::logits() {
  const auto count = static_cast<index_t>(host_logits_.size());
  backend_.copy(raw_logits_.data(), logits_.data, count * dtype_bytes(logits_.dtype), stream_);
  backend_.synchronize(stream_);
  dispatch_dtype(logits_.dtype, [&]<class T>() {
    for (std::size_t i = 0; i < host_logits_.size(); ++i) {
      T value;
      std::memcpy(&value, &raw_logits_[i * sizeof(T)], sizeof(T));
      host_logits_[i] = to_float(value);
    }
  });
  return host_logits_;
}

MemoryFigures Session::memory() const {
  const MemoryUse use = planner_.predict(pool_.needs());
  return {.device_bytes = device_memory_.peak_bytes() + pool_.layout().step_list_bytes(),
          .host_bytes = pool_.stats().host_used,
          .planned_device_bytes = use.device_own(),
          .planned_host_bytes = use.host_rows};
}

}  // namespace spectx::llama
