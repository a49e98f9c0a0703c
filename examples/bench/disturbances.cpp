// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <span>

#include "bench/timeline.hpp"

namespace spectx::bench {

namespace {

/// Of what is there.
double median_of(std::vector<double> values) {
  std::erase(values, 0);
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[(values.size() - 1) / 2];
}

/// Of steps[places..].
Neighbours medians(const std::vector<StepTime>& steps, std::span<const std::size_t> places) {
  std::vector<double> ms, bytes, rates;
  for (const std::size_t n : places) {
    ms.push_back(steps[n].ms);
    bytes.push_back(std::max(0.0, static_cast<double>(steps[n].link.bytes)));
    rates.push_back(steps[n].link.rate());
  }
  return {.ms = median_of(ms), .bytes = median_of(bytes), .rate = median_of(rates)};
}

}  // namespace

std::vector<Neighbours> neighbours(const std::vector<StepTime>& steps) {
  constexpr std::size_t kNeighbours = 8;
  std::vector<std::size_t> calm;
  for (std::size_t n = 0; n < steps.size(); ++n) {
    if (steps[n].causes == 0) calm.push_back(n);
  }
  const std::span<const std::size_t> places(calm);
  std::vector<Neighbours> all;
  for (std::size_t n = 0; n < steps.size(); ++n) {
    const auto here = std::lower_bound(calm.begin(), calm.end(), n);
    const auto before = static_cast<std::size_t>(here - calm.begin());
    const std::size_t after = before + (here != calm.end() && *here == n ? 1 : 0);
    const std::size_t first = before - std::min(kNeighbours, before);
    const Neighbours a = medians(steps, places.subspan(first, before - first));
    const Neighbours b =
        medians(steps, places.subspan(after, std::min(kNeighbours, places.size() - after)));
    const bool has_both_rates = a.rate > 0 && b.rate > 0;
    all.push_back({.ms = std::max(a.ms, b.ms),
                   .bytes = std::max(a.bytes, b.bytes),
                   .rate = has_both_rates ? std::min(a.rate, b.rate) : std::max(a.rate, b.rate)});
  }
  return all;
}

std::vector<Disturbance> disturbances(const std::vector<StepTime>& steps) {
  constexpr double kLonger = 1.2;
  const std::vector<Neighbours> usual = neighbours(steps);
  std::vector<Disturbance> all = {{.cause = 0}, {.cause = kChanges}};
  for (int bit = 0; bit < kNumCauses; ++bit) all.push_back({.cause = 1U << bit});
  for (Disturbance& d : all) {
    std::vector<double> ratios;
    for (std::size_t n = 0; n < steps.size(); ++n) {
      const bool is_beside = d.cause == 0 ? steps[n].causes == 0 : (steps[n].causes & d.cause) != 0;
      if (!is_beside || usual[n].ms == 0) continue;
      ratios.push_back(steps[n].ms / usual[n].ms);
      const bool is_longer = ratios.back() >= kLonger;
      const bool is_slower = usual[n].is_link_slower(steps[n].link);
      d.longer += is_longer ? 1 : 0;
      d.slow_link += is_slower ? 1 : 0;
      d.longer_slow_link += is_longer && is_slower ? 1 : 0;
      d.longer_more_bytes += is_longer && usual[n].has_more_bytes(steps[n].link) ? 1 : 0;
      if (ratios.back() > d.worst) d.at = static_cast<index_t>(n);
      d.worst = std::max(d.worst, ratios.back());
    }
    d.steps = static_cast<index_t>(ratios.size());
    std::sort(ratios.begin(), ratios.end());
    const auto at = [&](std::size_t percent) {
      return ratios[(ratios.size() - 1) * percent / 100];
    };
    if (!ratios.empty()) d.median = at(50);
    if (!ratios.empty()) d.p99 = at(99);
  }
  std::erase_if(all, [](const Disturbance& d) { return d.steps == 0; });
  return all;
}

std::string causes_text(unsigned causes) {
  if (causes == kChanges) return "any change";
  std::string text;
  for (int bit = 0; bit < kNumCauses; ++bit) {
    if ((causes >> bit & 1U) == 0) continue;
    text += (text.empty() ? "" : ", ") + std::string(cause_name(bit));
  }
  return text.empty() ? "nothing" : text;
}

const char* cause_name(int bit) noexcept {
  constexpr std::array<const char*, kNumCauses> kNames = {
      "a move starts",    "a move ends",      "a move is under way", "a request joins",
      "one leaves",       "a prompt's chunk", "a request warms",     "one is parked",
      "one resumes",      "a graph is made",  "the host tier grows", "tokens were filled in",
      "the host was late"};
  return kNames[static_cast<std::size_t>(bit)];
}

}  // namespace spectx::bench
