// SPDX-License-Identifier: Apache-2.0
#include "spectx/step_model.hpp"

#include <cmath>

#include "catch.hpp"
#include "support/planner_cases.hpp"

using namespace spectx;

namespace {

PlannerConfig config_with(double hot_buffer) {
  PlannerConfig config = test::llama_config();
  config.device_bytes = 80'000'000'000;
  config.max_requests = 64;
  config.hot_buffer = hot_buffer;
  return config;
}

/// The best batch for one hot buffer.
StepPrediction best_batch(double hot_buffer, const MachineRates& rates) {
  const MemoryPlanner planner(test::llama_shape(), config_with(hot_buffer));
  StepPrediction best;
  for (index_t requests = 1; requests <= 64; ++requests) {
    const StepPrediction step = predict_step(planner, requests, 34'816, rates);
    if (step.tokens_per_s() > best.tokens_per_s()) best = step;
  }
  return best;
}

}  // namespace

TEST_CASE("recorded miss rates, between the points on a line") {
  CHECK(recorded_miss_rate(1) == 0.218);
  CHECK(recorded_miss_rate(2) == 0.096);
  CHECK(recorded_miss_rate(4) == 0.030);
  CHECK(recorded_miss_rate(0.5) == recorded_miss_rate(1));
  CHECK(recorded_miss_rate(9) == recorded_miss_rate(4));
  CHECK(std::abs(recorded_miss_rate(2.5) - 0.074) < 1e-12);
  for (double x = 1; x < 5; x += 0.01) {
    CHECK(recorded_miss_rate(x + 0.01) <= recorded_miss_rate(x));
  }
}

TEST_CASE("Llama-3.1-8B at 34,816 tokens under 80 GB, with an H100's rates") {
  // An independent calculation for that machine: 2,429 tokens/s with 19 requests, 3,099 with 26.
  const MachineRates rates{.device_gb_s = 3000, .link_gb_s = 50};
  CHECK(std::abs(best_batch(1, rates).tokens_per_s() - 2429) < 0.05 * 2429);
  CHECK(std::abs(best_batch(2, rates).tokens_per_s() - 3099) < 0.05 * 3099);
}

TEST_CASE("a step's parts add up as they should") {
  const MemoryPlanner planner(test::llama_shape(), config_with(2));
  const MachineRates rates;
  for (index_t requests = 1; requests <= 34; ++requests) {
    const StepPrediction s = predict_step(planner, requests, 34'816, rates);
    CAPTURE(requests);
    CHECK(s.requests == requests);
    CHECK(s.exposed_ms <= s.transfer_ms);
    CHECK(s.exposed_ms >= s.transfer_ms - s.device_ms);
    CHECK((s.transfer_ms > 0) == (s.groups_on_host > 0));
    const double moved = static_cast<double>(s.groups_on_host) * 0.096 * 2048 * 8 * 2048;
    CHECK(std::abs(s.transfer_ms - moved / 50e6) < 1e-9 * (1 + s.transfer_ms));
    if (requests > 1) {
      CHECK(s.device_ms > predict_step(planner, requests - 1, 34'816, rates).device_ms);
    }
  }
  CHECK(predict_step(planner, 64, 34'816, rates).requests == 0);
  CHECK(predict_step(planner, 64, 34'816, rates).tokens_per_s() == 0);
  CHECK(predict_step(planner, 64, 4096, rates).transfer_ms == 0);  // all rows are in slots
}

TEST_CASE("the best step is no worse than any that was asked, and worse with more misses") {
  const MachineRates rates;
  const StepPrediction best = best_step(test::llama_shape(), config_with(2), 34'816, rates);
  for (const double hot : {1.0, 1.5, 2.0, 4.0}) {
    CHECK(best.tokens_per_s() >= best_batch(hot, rates).tokens_per_s());
  }
  MachineRates worse = rates;
  worse.miss_scale = 3;
  CHECK(best_step(test::llama_shape(), config_with(2), 34'816, worse).tokens_per_s() <
        best.tokens_per_s());
  PlannerConfig tiny = config_with(2);
  tiny.device_bytes = tiny.model_bytes;
  CHECK(best_step(test::llama_shape(), tiny, 34'816, rates).requests == 0);
}
