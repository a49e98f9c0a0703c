// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "spectx/types.hpp"

namespace spectx::bench {

/// A request that comes, grows and goes.
struct Visit {
  index_t arrives = 0;  // step
  index_t prompt = 0;   // tokens
  index_t output = 0;   // tokens, at least one
};

struct Range {
  index_t low = 1, high = 1;
};

/// Requests of mixed lengths, of a seed. Lengths are spread evenly over their logarithm, the gaps
/// between two arrivals evenly over 0 .. 2 mean_gap.
struct Arrivals {
  index_t count = 0;
  Range prompt, output;
  index_t mean_gap = 40;   // steps
  index_t park_every = 0;  // steps; then one request is parked for half as long; 0: none is
  std::uint64_t seed = 1;
};

/// Ordered by arrival.
std::vector<Visit> visits_of(const Arrivals& arrivals);
/// Requests that come at once and are alike.
inline std::vector<Visit> same_visits(index_t count, index_t prompt, index_t output) {
  return std::vector<Visit>(static_cast<std::size_t>(count), {0, prompt, output});
}
/// The longest that one of them becomes.
index_t longest(const std::vector<Visit>& visits);
/// That they make, all together.
index_t tokens_of(const std::vector<Visit>& visits);

}  // namespace spectx::bench
