// SPDX-License-Identifier: Apache-2.0
// What the planner says of a case, before it is measured.
#include <algorithm>

#include "bench/measure.hpp"

namespace spectx::bench {
namespace {

/// The planner of a case, or nothing if not even one request fits.
std::optional<MemoryPlanner> planner_of(const Bench& bench, const Case& c) {
  try {
    return std::optional<MemoryPlanner>(
        std::in_place, model_shape(bench.weights.config(), bench.weights.dtype()),
        Engine::planner_config(*bench.chosen.backend, bench.weights,
                               c.is_dense ? nullptr : &bench.head,
                               engine_config(bench, c, length_of(bench, c))));
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

index_t length_of(const Bench& bench, const Case& c) {
  const Options& o = bench.options;
  const index_t steps = o.warm_up + o.steps * o.repeats + o.profiled + 1;
  return c.context + steps * static_cast<index_t>(c.is_dense ? 1 : o.miss_scales.size()) + 1;
}

StepPrediction predict(const Bench& bench, const Case& c) {
  const auto planner = planner_of(bench, c);
  if (!planner) return {};
  MachineRates rates = bench.chosen.name == "cuda" ? h100_rates() : MachineRates{};
  rates.miss_scale = std::max(c.miss_scale, 1.0);
  StepPrediction p = predict_step(*planner, c.requests, length_of(bench, c), rates);
  if (p.requests == 0 || !c.is_dense) return p;
  // The model's step reads a budget; this one reads everything.
  const ModelShape& shape = planner->shape();
  const double more =
      static_cast<double>(std::max<index_t>(c.context - c.selection.budget, 0)) *
      static_cast<double>(shape.kv_heads * shape.row_bytes() * shape.cached_layers() * c.requests);
  p.device_ms += more / (rates.device_gb_s * 1e6);
  return p;
}

std::optional<ReplayShape> replay_shape(const Bench& bench, const Case& c, index_t length) {
  if (c.is_dense || c.miss_scale <= 0 || length <= c.selection.budget) return std::nullopt;
  return ReplayShape{.selection = c.selection, .kv_heads = bench.weights.config().kv_heads};
}

std::optional<ReplayShape> scaled_replay_shape(const Bench& bench, const Case& c, index_t length,
                                               const KVPool& pool) {
  std::optional<ReplayShape> shape = replay_shape(bench, c, length);
  if (shape) {
    shape->random_share = random_share_for(
        bench.trace, *shape, length, std::max(pool.plan().slots, c.selection.budget), c.miss_scale);
  }
  return shape;
}

index_t own_bytes(const Bench& bench, const Case& c, index_t max_length) {
  const llama::LlamaConfig& m = bench.weights.config();
  const index_t element = dtype_bytes(bench.chosen.backend->compute_dtype(bench.weights.dtype()));
  const index_t rows = std::max(bench.options.chunk_rows, c.requests);
  const auto shape = replay_shape(bench, c, max_length);
  return rows * m.kv_heads * (m.k_dim + m.v_dim) * element +
         (shape ? Replay::bytes(*shape, c.requests) : 0);
}

EngineConfig engine_config(const Bench& bench, const Case& c, index_t max_length) {
  constexpr index_t kMostFilled = 24;  // the scores of so many are within the scratch's most
  constexpr index_t kGraphLayerBytes = 192 << 10;  // of a graph, a layer: 163 KiB measured
  const Options& o = bench.options;
  const index_t graphs = o.arrivals.count > 0 ? c.requests : 1;
  const index_t graph_bytes =
      o.captures ? graphs * bench.weights.config().layers * kGraphLayerBytes : 0;
  const index_t device_bytes =
      bench.cap - bench.taken_outside - graph_bytes - own_bytes(bench, c, max_length);
  return {.selection = c.selection,
          .hot_buffer = c.hot_buffer,
          .max_requests = c.requests,
          .max_length = max_length,
          .chunk_rows = std::max(o.chunk_rows, c.requests),
          .device_bytes = std::max<index_t>(device_bytes, 1),  // so the planner says what lacks
          .host_bytes = o.host_bytes,
          .host_dtype = c.host_dtype,
          .copy_blocks = static_cast<int>(c.copy_blocks),
          .captures = o.captures,
          .fill_rows = o.skip.high > 0 ? kMostFilled : 0,
          .graphs = graphs,
          .offloads_all = o.offloads_all};
}

index_t requests_of(const Bench& bench, const Case& c, const std::string& asked) {
  if (asked != "max" && asked != "best") return std::stoll(asked);
  constexpr index_t kMost = 512;
  Case with = c;
  const auto fits = [&](index_t requests) {
    with.requests = requests;
    const auto planner = planner_of(bench, with);
    return planner && planner->groups_on_host(requests, length_of(bench, with)) >= 0;
  };
  index_t most = 0;
  for (index_t too_many = kMost + 1; most + 1 < too_many;) {
    const index_t middle = most + (too_many - most) / 2;
    (fits(middle) ? most : too_many) = middle;
  }
  if (asked == "max") return most;
  index_t best = 0;
  double rate = 0;
  for (index_t requests = 1; requests <= most; ++requests) {
    with.requests = requests;
    const double predicted = predict(bench, with).tokens_per_s();
    if (predicted > rate) best = requests;
    rate = std::max(rate, predicted);
  }
  return best;
}

}  // namespace spectx::bench
