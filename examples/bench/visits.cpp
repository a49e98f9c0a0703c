// SPDX-License-Identifier: Apache-2.0
#include "bench/visits.hpp"

#include <algorithm>
#include <cmath>
#include <random>

namespace spectx::bench {

std::vector<Visit> visits_of(const Arrivals& arrivals) {
  std::mt19937_64 engine(arrivals.seed);
  const auto uniform = [&] { return static_cast<double>(engine() >> 11) * 0x1p-53; };
  const auto between = [&](const Range& range) {
    const double ratio = static_cast<double>(range.high) / static_cast<double>(range.low);
    const double value = static_cast<double>(range.low) * std::pow(ratio, uniform());
    return std::clamp(static_cast<index_t>(std::lround(value)), range.low, range.high);
  };
  std::vector<Visit> visits;
  index_t step = 0;
  for (index_t n = 0; n < arrivals.count; ++n) {
    const index_t prompt = between(arrivals.prompt);
    const index_t output = between(arrivals.output);
    visits.push_back({step, prompt, output});
    step += static_cast<index_t>(2 * uniform() * static_cast<double>(arrivals.mean_gap));
  }
  return visits;
}

index_t longest(const std::vector<Visit>& visits) {
  index_t most = 0;
  for (const Visit& visit : visits) most = std::max(most, visit.prompt + visit.output);
  return most;
}

index_t tokens_of(const std::vector<Visit>& visits) {
  index_t tokens = 0;
  for (const Visit& visit : visits) tokens += visit.output;
  return tokens;
}

}  // namespace spectx::bench
