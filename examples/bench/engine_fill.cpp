// SPDX-License-Identifier: Apache-2.0
// How an Engine's requests get their rows, and its graphs.
#include <algorithm>
#include <chrono>
#include <thread>

#include "bench/engine.hpp"

namespace spectx::bench {

void Engine::add_chunk(RequestId request, index_t count, bool computes) {
  place();
  const auto tokens = std::span(tokens_).first(static_cast<std::size_t>(count));
  items_.assign({{.request = request, .tokens = tokens, .is_dense = true}});
  const Batch& batch = pool_.schedule(items_, stream_);
  append_rows(batch, select(batch, /*source=*/nullptr), computes);
}

void Engine::fill_in(index_t count, SelectionSource* source) {
  place();
  const Batch& batch = schedule(requests_, count);
  stage(batch, source);
  append_rows(batch, select(batch, source), /*computes=*/false);
}

void Engine::settle() {
  constexpr int kMostTries = 10000;
  const auto is_settled = [&] {
    const Placement asked = asked_placement();
    for (std::size_t i = 0; i < asked.needs.size(); ++i) {
      const RequestNeed& need = asked.needs[i];
      if (need.moving_to >= 0 || need.resident_groups != asked.resident_groups[i]) return false;
    }
    return true;
  };
  for (int n = 0; n < kMostTries && !is_settled(); ++n) place_and_wait();
}

void Engine::place_and_wait() {
  place();
  synchronize();
  pipeline_.wait_ready();
  std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the host tier may have to grow
}

/// A step without logits; without `computes` its rows are random and nothing is attended to.
void Engine::append_rows(const Batch& batch, const Selection& selection, bool computes) {
  const llama::LlamaConfig& m = weights_.config();
  const llama::LlamaDecoder::Qkv random{
      .q = {},
      .k = split_heads(rows(random_k_, 0, batch.num_rows), m.kv_heads, m.k_dim),
      .v = split_heads(rows(random_v_, 0, batch.num_rows), m.kv_heads, m.v_dim)};
  pipeline_.begin_step(batch, selection, stream_);
  decoder_.embed(batch, stream_);
  for (index_t layer = 0; layer < m.layers; ++layer) {
    if (head_) head_->observe(layer, batch, decoder_.hidden(), stream_);
    const auto [q, k, v] = computes ? decoder_.qkv(layer, batch, stream_) : random;
    const KVView view = pipeline_.append(layer, k, v, stream_);
    if (!computes || layer + 1 == m.layers) continue;
    backend_.attend({.q = q, .kv = view, .batch = &batch, .out = decoder_.attention_out()},
                    stream_);
    decoder_.finish(layer, stream_);
  }
  pipeline_.end_step(stream_);
}

void Engine::make_graphs(SelectionSource* source) {
  if (!config_.captures) return;
  const index_t context =
      std::min(config_.max_length - config_.graphs - 2, config_.selection.budget);
  if (context <= 0) return;
  const index_t length = std::min(config_.max_length, context + config_.graphs + 2);
  while (static_cast<index_t>(requests_.size()) < config_.max_requests &&
         planner_.admit(pool_.needs(), length) == Admission::now) {
    open(context, length, /*computes=*/false);
  }
  warm(requests_, source);
  pipeline_.wait_ready();
  const std::vector<RequestId> all = requests_;
  step(source, nullptr);
  for (index_t n = 0; n < config_.graphs && !requests_.empty(); ++n) {
    step(source, nullptr);
    synchronize();
    requests_.pop_back();
  }
  requests_.clear();
  for (const RequestId request : all) close(request);
  synchronize();
}

bool Engine::make_room() {
  constexpr int kMostTries = 5000;
  for (int n = 0; n < kMostTries; ++n) {
    if (planner_.admit(pool_.needs(), config_.max_length) == Admission::now) return true;
    place_and_wait();  // what admit() found lacking, which a second call would not know of
  }
  return false;
}

RequestId Engine::open(index_t context, index_t final_length, bool computes) {
  const RequestId request = reserve(final_length);
  for (index_t done = 0; done < context;) {
    const index_t count = std::min(config_.chunk_rows, context - done);
    settle();  // rows come faster than in a prompt, and groups leave no faster
    add_chunk(request, count, computes);
    done += count;
    synchronize();  // the host must not run ahead of the device without bound
  }
  join(request);
  return request;
}

}  // namespace spectx::bench
