// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "generate/run.hpp"

namespace spectx::generate {

/// How a run with spectx differs from one with full attention.
struct Comparison {
  double equal_tokens = 0;  // share of the free-running tokens, place by place
  index_t positions = 0;    // of the full run's text that were compared
  double mean_kl = 0;       // nats, full || spectx
  double top1_agreement = 0;
};

/// The logits of a full run, up to a bound on their memory.
class KeptLogits {
 public:
  KeptLogits(index_t max_tokens, index_t vocabulary);

  void push(std::span<const float> logits) {
    if (size() < max_rows_) values_.insert(values_.end(), logits.begin(), logits.end());
  }
  index_t size() const { return static_cast<index_t>(values_.size()) / vocabulary_; }
  std::span<const float> row(index_t n) const {
    return std::span(values_).subspan(static_cast<std::size_t>(n * vocabulary_),
                                      static_cast<std::size_t>(vocabulary_));
  }

 private:
  index_t vocabulary_;
  index_t max_rows_;
  std::vector<float> values_;
};

/// Share of places with the same token; a run that ended early differs from there on.
double equal_share(std::span<const std::int32_t> a, std::span<const std::int32_t> b);

/// Runs the text of the full run through a rewound session with spectx and compares the logits.
/// @param last  the prompt's last token, @param progress  called with the tokens done
Comparison compare(llama::Session& session, std::int32_t last, const RunFigures& full,
                   const RunFigures& selected, const KeptLogits& logits,
                   const std::function<void(index_t)>& progress);

}  // namespace spectx::generate
