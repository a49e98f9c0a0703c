// SPDX-License-Identifier: Apache-2.0
#include "llama/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "spectx/error.hpp"

namespace spectx::llama {
namespace {

float or_lowest(float logit) {
  return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
}

}  // namespace

Sampler::Sampler(const SamplingConfig& config) : config_(config), engine_(config.seed) {
  expects(config.temperature >= 0, "Sampler: temperature must not be negative");
  expects(config.top_p > 0 && config.top_p <= 1, "Sampler: top_p must be in (0, 1]");
}

double Sampler::uniform() {
  // Not std::uniform_real_distribution: its result differs between standard libraries.
  return static_cast<double>(engine_() >> 11) * 0x1p-53;
}

std::int32_t Sampler::sample(std::span<const float> logits) {
  const std::int32_t best = likeliest(logits);
  if (is_greedy()) return best;
  const double u = uniform();
  const double top = or_lowest(logits[static_cast<std::size_t>(best)]);
  if (!std::isfinite(top)) return best;

  double sum = 0;
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double weight =
        std::exp((static_cast<double>(or_lowest(logits[i])) - top) / config_.temperature);
    sum += weight;
    candidates_.push_back({weight, static_cast<std::int32_t>(i)});
  }
  if (config_.top_p < 1) {
    // Tokens that are this rare have no more than 1 - top_p together: they cannot be needed.
    const double floor = (1 - config_.top_p) / static_cast<double>(logits.size()) * sum;
    std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < floor; });
    std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
      return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
    });
    const double wanted = config_.top_p * sum;
    sum = 0;
    std::size_t kept = 0;
    while (kept < candidates_.size() && (kept == 0 || sum < wanted)) {
      sum += candidates_[kept++].weight;
    }
    candidates_.resize(kept);
  }
  double left = u * sum;
  for (const Candidate& c : candidates_) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return best;  // rounding left a remainder
}

std::int32_t likeliest(std::span<const float> logits) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < logits.size(); ++i) {
    if (or_lowest(logits[i]) > or_lowest(logits[best])) best = i;
  }
  return static_cast<std::int32_t>(best);
}

}  // namespace spectx::llama
