// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "spectx/types.hpp"

namespace spectx::llama {

struct SamplingConfig {
  double temperature = 0;  // 0: the likeliest token, always
  double top_p = 1;        // of the tokens sorted by probability, the first that sum to it
  std::uint64_t seed = 0;
};

/// Chooses tokens from logits. The same seed and logits give the same tokens. NaN ranks below every
/// number, ties go to the lower id. Allocates nothing once warm. Not thread-safe.
class Sampler {
 public:
  /// Throws InvalidArgument unless temperature >= 0 and 0 < top_p <= 1.
  explicit Sampler(const SamplingConfig& config);

  bool is_greedy() const noexcept { return config_.temperature == 0; }
  /// @param logits  [vocabulary], not empty
  std::int32_t sample(std::span<const float> logits);

 private:
  struct Candidate {
    double weight = 0;  // exp((logit - largest) / temperature)
    std::int32_t id = 0;
  };

  double uniform();  // [0, 1)

  SamplingConfig config_;
  std::mt19937_64 engine_;
  std::vector<Candidate> candidates_;
};

/// The lowest index of the largest logit.
std::int32_t likeliest(std::span<const float> logits);

}  // namespace spectx::llama
