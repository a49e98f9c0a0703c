// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "spectx/memory_planner.hpp"

namespace spectx {

/// What a machine and a head do, measured by whoever asks. As they are the shares make a bound by
/// bytes alone: every weight and row read once at the memory's rate, no launch, no arithmetic.
struct MachineRates {
  double device_gb_s = 3000;  // of the device's memory, 1e9 bytes
  double link_gb_s = 50;      // of a gather from host memory
  double miss_scale = 1;      // times the recorded miss rate: ask with 1.5 too
  double weight_share = 1;    // of the device's rate, at which products read weights,
  double row_share = 1;       // attention selected rows,
  double key_share = 1;       // and the head its keys
  double layer_us = 0;        // of a layer beside these: launches, norms, RoPE, new rows
};

/// An H100 (80 GB, PCIe 5) with captured steps; docs/performance.md.
inline MachineRates h100_rates() {
  return {.device_gb_s = 3000,
          .link_gb_s = 49,
          .weight_share = 0.93,
          .row_share = 0.84,
          .key_share = 0.8,
          .layer_us = 30};
}

/// A predicted decode step of equal requests.
struct StepPrediction {
  index_t requests = 0;  // 0: nothing fits
  double hot_buffer = 0;
  index_t groups_on_host = 0;  // of all requests together
  double device_ms = 0;        // of the compute stream, without waiting for rows
  double transfer_ms = 0;      // missed rows over the link
  double exposed_ms = 0;       // transfers that no earlier group's compute hides

  double step_ms() const noexcept { return device_ms + exposed_ms; }
  double tokens_per_s() const noexcept {
    return requests == 0 ? 0 : 1000 * static_cast<double>(requests) / step_ms();
  }
};

/// Share of the budget that a step has to fetch, by device slots / budget: recorded selections of
/// SmolLM2-135M at 8,192 tokens, budget 512, through the same LRU buffer.
inline double recorded_miss_rate(double hot_buffer) {
  constexpr std::array<std::array<double, 2>, 6> kPoints{
      {{1, 0.218}, {1.25, 0.161}, {1.5, 0.132}, {2, 0.096}, {3, 0.052}, {4, 0.030}}};
  for (std::size_t i = 1; i < kPoints.size(); ++i) {
    const auto [x0, y0] = kPoints[i - 1];
    const auto [x1, y1] = kPoints[i];
    if (hot_buffer <= x1) return y0 + (y1 - y0) * (std::max(hot_buffer, x0) - x0) / (x1 - x0);
  }
  return kPoints.back()[1];
}

/// One step of `requests` requests of `length` tokens, placed by the planner; requests 0 if they
/// cannot run at once.
inline StepPrediction predict_step(const MemoryPlanner& planner, index_t requests, index_t length,
                                   const MachineRates& rates) {
  const index_t on_host = planner.groups_on_host(requests, length);
  if (on_host < 0) return {};
  const PlannerConfig& config = planner.config();
  const PoolLayout& layout = planner.layout();
  const ModelShape& shape = planner.shape();
  const auto real = [](index_t n) { return static_cast<double>(n); };
  StepPrediction step{
      .requests = requests, .hot_buffer = config.hot_buffer, .groups_on_host = on_host};

  const index_t read_rows = std::min(length, config.selection.budget);
  const double rows = real(read_rows * shape.kv_heads * layout.row_bytes * shape.cached_layers());
  const double keys = real(length * layout.key_row_bytes);
  const double weights = real(config.model_bytes + config.head_weight_bytes);
  const double read = weights / rates.weight_share +
                      real(requests) * (rows / rates.row_share + keys / rates.key_share);
  step.device_ms = read / (rates.device_gb_s * 1e6) + real(shape.layers) * rates.layer_us * 1e-3;

  const double missed =
      length <= planner.pool_plan().slots
          ? 0
          : recorded_miss_rate(config.hot_buffer) * rates.miss_scale * real(read_rows);
  const double group_ms =
      missed * real(shape.kv_heads * layout.run.bytes) / (rates.link_gb_s * 1e6);
  for (index_t g = 0; g < layout.groups; ++g) {
    // The last groups of all requests are on the host before one that lies ahead.
    const index_t behind = (layout.groups - 1 - g) * requests;
    step.transfer_ms += group_ms * real(std::clamp<index_t>(on_host - behind, 0, requests));
    const double before = step.device_ms * real(g) / real(layout.groups);
    step.exposed_ms = std::max(step.exposed_ms, step.transfer_ms - before);
  }
  return step;
}

/// The batch (at most config.max_requests) and hot buffer with the most tokens per second at
/// `length`. Builds a planner for each hot buffer.
inline StepPrediction best_step(const ModelShape& shape, PlannerConfig config, index_t length,
                                const MachineRates& rates) {
  detail::check_plan(shape, config);
  StepPrediction best;
  for (const double hot_buffer : {1.0, 1.25, 1.5, 2.0, 3.0, 4.0}) {
    config.hot_buffer = hot_buffer;
    try {
      const MemoryPlanner planner(shape, config);
      for (index_t requests = 1; requests <= config.max_requests; ++requests) {
        const StepPrediction step = predict_step(planner, requests, length, rates);
        if (step.requests == 0) break;
        if (step.tokens_per_s() > best.tokens_per_s()) best = step;
      }
    } catch (const OutOfMemory&) {  // this buffer is too large
    }
  }
  return best;
}

}  // namespace spectx
