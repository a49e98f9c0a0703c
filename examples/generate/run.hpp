// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "llama/sampler.hpp"
#include "llama/session.hpp"
#include "llama/tokenizer.hpp"

namespace spectx::generate {

/// What one run over the same prompt gave.
struct RunFigures {
  std::vector<std::int32_t> tokens;  // the end token included
  std::string text;
  bool has_ended = false;            // by the model's end token
  std::vector<double> step_seconds;  // of every step, in their order
  double attend_seconds = 0;         // of all steps
  double head_seconds = 0;           // retrieval head and selection
  index_t rows = 0;                  // that each KV head read
  index_t kv_bytes = 0;              // read by attention
  index_t key_bytes = 0;             // read by the head
  index_t hits = 0;                  // selected rows that were on the device, offloaded groups
  index_t misses = 0;
  index_t moved_bytes = 0;  // from the host tier
  double coverage = 0;      // mean over steps
  double least_coverage = 1;
  index_t replayed = 0;      // steps that were launched as a graph
  index_t guard_raised = 0;  // steps that read more than the budget, enough
  index_t guard_full = 0;    // that read everything, for the largest budget was too little
  index_t guard_limited = 0;
  const char* path = "";  // of the last step

  double seconds() const;
  double tokens_per_second() const { return static_cast<double>(step_seconds.size()) / seconds(); }
  /// Of a step, nearest rank. @param p  in (0, 1]
  double percentile_seconds(double p) const;
  double per_step(index_t sum) const {
    return static_cast<double>(sum) / static_cast<double>(step_seconds.size());
  }
  /// Share of the selected rows that were on the device; NaN where nothing is offloaded.
  double hit_rate() const { return static_cast<double>(hits) / static_cast<double>(hits + misses); }
};

struct RunConfig {
  llama::Attention attention = llama::Attention::selected;
  llama::SamplingConfig sampling;
  index_t max_tokens = 128;
  bool stops = true;  // at the model's end token
};

/// Called with every step's logits; empty: they stay where they are.
using OnLogits = std::function<void(std::span<const float>)>;

/// Decodes on from a prefilled session, text to standard output as it is certain.
/// @param last  the prompt's last token. Throws FileError when standard output cannot be written.
RunFigures run(llama::Session& session, const llama::Tokenizer& tokenizer, std::int32_t last,
               const RunConfig& config, const OnLogits& on_logits = {});

}  // namespace spectx::generate
