// SPDX-License-Identifier: Apache-2.0
#include "bench/engine.hpp"

#include <algorithm>
#include <array>

#include "llama/random_values.hpp"

namespace spectx::bench {

const char* part_name(int part) noexcept {
  constexpr std::array<const char*, kNumParts> kNames = {"schedule", "head",   "slots", "linears",
                                                         "append",   "attend", "logits"};
  return kNames[static_cast<std::size_t>(part)];
}

PlannerConfig Engine::planner_config(const Backend& backend, const llama::LlamaWeights& weights,
                                     const io::LoadedHead* head, const EngineConfig& config) {
  const llama::DecoderConfig decoder{.max_step_rows = config.chunk_rows,
                                     .max_logit_rows = config.max_requests};
  const DType compute = backend.compute_dtype(weights.dtype());
  PlannerConfig c;
  c.device_bytes = config.device_bytes;
  c.host_bytes = backend.has_one_memory() || head == nullptr ? 0 : config.host_bytes;
  c.model_bytes = weights.bytes() + llama::LlamaDecoder::bytes(weights.config(), decoder, compute);
  c.force_host_tier = config.offloads_all && c.host_bytes > 0;
  c.selection = config.selection;
  c.max_requests = config.max_requests;
  c.max_length = config.max_length;
  c.max_step_rows = config.chunk_rows;
  c.hot_buffer = config.hot_buffer;
  c.host_dtype = config.host_dtype;
  if (head != nullptr) {
    c.head = head->weights.shape;
    c.head_weight_bytes = head->storage.bytes();
  }
  const ModelShape shape = model_shape(weights.config(), weights.dtype());
  c = for_backend(backend, shape, weights.dtype(), c);
  ScratchShape scratch = scratch_shape(shape, c);
  scratch.requests *= std::max<index_t>(1, config.fill_rows);  // rows that are scored at once
  c.scratch_bytes = backend.scratch_bytes(scratch);
  return c;
}

Engine::Engine(Backend& backend, const llama::LlamaWeights& weights, const io::LoadedHead* head,
               const EngineConfig& config, Memories memories)
    : backend_(backend),
      weights_(weights),
      config_(config),
      stream_(backend.make_stream()),
      decoder_(backend, weights,
               {.max_step_rows = config.chunk_rows, .max_logit_rows = config.max_requests},
               stream_),
      planner_(model_shape(weights.config(), weights.dtype()),
               planner_config(backend, weights, head, config)),
      pool_(backend, planner_.shape(), planner_.pool_plan(), memories),
      pipeline_(backend, pool_, {.copy_blocks = config.copy_blocks}),
      tokens_(static_cast<std::size_t>(config.chunk_rows)) {
  if (head != nullptr) {
    head_.emplace(backend, pool_, head->weights, HeadConfig{.measures_coverage = false}, memories);
  }
  const llama::LlamaConfig& m = weights.config();
  const DType compute = backend.compute_dtype(weights.dtype());
  const index_t k_cols = m.kv_heads * m.k_dim;
  const index_t v_cols = m.kv_heads * m.v_dim;
  random_rows_ =
      Buffer(memories.device, config.chunk_rows * (k_cols + v_cols) * dtype_bytes(compute));
  const TensorView all =
      matrix_view(random_rows_.data(), compute, config.chunk_rows, k_cols + v_cols);
  llama::fill_random(backend, all, 7, stream_);
  random_k_ = columns(all, 0, k_cols);
  random_v_ = columns(all, k_cols, v_cols);
  std::mt19937 engine(5);
  for (std::int32_t& token : tokens_) {
    token = static_cast<std::int32_t>(engine() % static_cast<std::uint32_t>(m.vocabulary));
  }
  requests_.reserve(static_cast<std::size_t>(config.max_requests));
  next_of_.reserve(requests_.capacity());
  items_.reserve(requests_.capacity());
}

const Batch& Engine::schedule(std::span<const RequestId> requests, index_t tokens) {
  items_.clear();
  for (const RequestId request : requests) {
    items_.push_back({.request = request,
                      .tokens = std::span(tokens_).first(static_cast<std::size_t>(tokens)),
                      .is_dense = !head_.has_value()});
  }
  return pool_.schedule(items_, stream_);
}

/// The host gives place holders; the tokens themselves stay on the device.
void Engine::feed_tokens(const Batch& batch) {
  const auto place_before = [&](const ScheduledItem& item) {
    return std::find(next_of_.begin(), next_of_.end(), item.request) - next_of_.begin();
  };
  const auto none = static_cast<std::ptrdiff_t>(next_of_.size());
  const auto count = static_cast<index_t>(batch.items.size());
  for (index_t i = 0; i < count;) {
    const std::ptrdiff_t from = place_before(batch.items[static_cast<std::size_t>(i)]);
    index_t run = 1;  // neighbours then and now
    while (from + run < none && i + run < count &&
           next_of_[static_cast<std::size_t>(from + run)] ==
               batch.items[static_cast<std::size_t>(i + run)].request) {
      ++run;
    }
    if (from < none) {
      backend_.copy(batch.tokens.data + i, next_tokens_.data + from, run * 4, stream_);
    }
    i += run;
  }
}

void Engine::close(RequestId request) {
  if (emptied_ == request) emptied_.reset();
  pool_.close(request, stream_);
}

Placement Engine::asked_placement() {
  const Placement asked = planner_.place(pool_.needs());
  const bool offloads_all = config_.offloads_all && pool_.plan().has_host_tier();
  if (!emptied_ && !offloads_all) return asked;
  targets_.assign(asked.resident_groups.begin(), asked.resident_groups.end());
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    const RequestNeed& need = asked.needs[i];
    // A prompt whose rows are on the host would fetch them again for each of its chunks.
    if (offloads_all && std::count(requests_.begin(), requests_.end(), need.request) > 0) {
      targets_[i] = 0;
    }
    if (emptied_ && need.request == *emptied_) targets_[i] = std::max(0, need.resident_groups - 1);
  }
  return {asked.needs, targets_};
}

void Engine::place() { pipeline_.apply(asked_placement(), stream_); }

void Engine::warm(SelectionSource* source) {
  settle();  // moves end before the requests are warmed
  warm(requests_, source);
  synchronize();
  pipeline_.wait_ready();
}

void Engine::warm(std::span<const RequestId> requests, SelectionSource* source) {
  if (!head_) return;
  const Batch& batch = schedule(requests);
  stage(batch, source);
  pipeline_.warm(batch, select(batch, source), stream_);
}

void Engine::stage(const Batch& batch, SelectionSource* source) {
  if (source != nullptr && batch.needs_selection) source->stage(batch, stream_);
}

Selection Engine::select(const Batch& batch, SelectionSource* source) {
  Selection selection;
  if (head_) selection = head_->select(batch, stream_);
  if (source != nullptr && batch.needs_selection) source->write(batch, selection, stream_);
  return selection;
}

bool Engine::can_replay(const Batch& batch) const {
  return config_.captures && (!head_ || head_->can_replay(batch)) && pipeline_.can_replay(batch);
}

void Engine::step(SelectionSource* source, llama::StepClock* clock) {
  if (clock != nullptr) {
    clock->begin_step();
    clock->mark(kSchedule, stream_);
  }
  place();
  const Batch& batch = schedule(requests_);
  feed_tokens(batch);
  next_of_ = requests_;
  stage(batch, source);
  if (clock != nullptr || !can_replay(batch)) return run_step(batch, source, clock);
  const StepShape shape = batch.shape();
  auto graph = graphs_.find({shape, source});
  if (graph == graphs_.end()) {
    const auto work = [&] {
      run_step(batch, source, nullptr);
      pipeline_.join(stream_);
    };
    graph = graphs_.emplace(std::pair(shape, source), support::CapturedStep(stream_, work)).first;
  }
  if (head_) head_->begin_replay(batch);
  pipeline_.begin_replay(batch, shape);
  graph->second.launch(stream_);
  pipeline_.end_step(stream_);
}

void Engine::run_step(const Batch& batch, SelectionSource* source, llama::StepClock* clock) {
  const auto mark = [&](Part part) {
    if (clock != nullptr) clock->mark(part, stream_);
  };
  mark(kHead);
  const Selection selection = select(batch, source);
  mark(kSlots);
  pipeline_.begin_step(batch, selection, stream_);
  mark(kLinears);
  decoder_.embed(batch, stream_);
  for (index_t layer = 0; layer < weights_.config().layers; ++layer) {
    if (head_) {
      mark(kHead);
      head_->observe(layer, batch, decoder_.hidden(), stream_);
      mark(kLinears);
    }
    const auto [q, k, v] = decoder_.qkv(layer, batch, stream_);
    mark(kAppend);
    const KVView view = pipeline_.append(layer, k, v, stream_);
    mark(kAttend);
    backend_.attend({.q = q, .kv = view, .batch = &batch, .out = decoder_.attention_out()},
                    stream_);
    mark(kLinears);
    decoder_.finish(layer, stream_);
  }
  mark(kLogits);
  pipeline_.end_step(stream_);
  next_tokens_ = decoder_.likeliest(decoder_.last_logits(batch, stream_), stream_);
  mark(kSchedule);
}

}  // namespace spectx::bench
