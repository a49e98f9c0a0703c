// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "bench/timeline.hpp"

namespace spectx::bench {

std::vector<double> neighbours_ms(const std::vector<StepTime>& steps) {
  constexpr std::ptrdiff_t kNeighbours = 8;
  std::vector<std::size_t> calm;
  for (std::size_t n = 0; n < steps.size(); ++n) {
    if (steps[n].causes == 0) calm.push_back(n);
  }
  const auto median = [&](auto from, auto to) {
    std::vector<double> times;
    for (; from != to; ++from) times.push_back(steps[*from].ms);
    std::sort(times.begin(), times.end());
    return times.empty() ? 0.0 : times[(times.size() - 1) / 2];
  };
  std::vector<double> usual;
  for (std::size_t n = 0; n < steps.size(); ++n) {
    const auto before = std::lower_bound(calm.begin(), calm.end(), n);
    const auto after = std::upper_bound(calm.begin(), calm.end(), n);
    usual.push_back(std::max(median(before - std::min(kNeighbours, before - calm.begin()), before),
                             median(after, after + std::min(kNeighbours, calm.end() - after))));
  }
  return usual;
}

std::vector<Disturbance> disturbances(const std::vector<StepTime>& steps) {
  constexpr double kLonger = 1.2;
  const std::vector<double> usual = neighbours_ms(steps);
  std::vector<Disturbance> all = {{.cause = 0}, {.cause = kChanges}};
  for (int bit = 0; bit < kNumCauses; ++bit) all.push_back({.cause = 1U << bit});
  for (Disturbance& d : all) {
    std::vector<double> ratios;
    for (std::size_t n = 0; n < steps.size(); ++n) {
      const bool is_beside = d.cause == 0 ? steps[n].causes == 0 : (steps[n].causes & d.cause) != 0;
      if (!is_beside || usual[n] == 0) continue;
      ratios.push_back(steps[n].ms / usual[n]);
      d.longer += ratios.back() >= kLonger ? 1 : 0;
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
