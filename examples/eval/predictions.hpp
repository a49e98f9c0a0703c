// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "spectx/types.hpp"

namespace spectx::eval {

/// What full attention predicted at every measured position, and how another prediction differs.
class Predictions {
 public:
  explicit Predictions(index_t vocabulary) : vocabulary_(vocabulary) {}

  void clear();
  void add(std::span<const float> logits);

  struct Difference {
    double loss = 0;        // of the next token, nats
    double kl = 0;          // full || other, nats
    bool agrees = false;    // with full attention's likeliest token
    bool is_right = false;  // the next token is the likeliest
  };
  Difference compare(index_t position, std::span<const float> logits, std::int32_t next) const;
  double loss(index_t position, std::int32_t next) const;
  std::int32_t likeliest(index_t position) const;
  /// Logits by which `next` is ahead of every other token; negative where it is not.
  double lead(index_t position, std::int32_t next) const;

 private:
  std::span<const float> row(index_t position) const {
    return std::span(logits_).subspan(static_cast<std::size_t>(position * vocabulary_),
                                      static_cast<std::size_t>(vocabulary_));
  }

  index_t vocabulary_;
  std::vector<float> logits_;    // [positions, vocabulary]
  std::vector<double> log_sum_;  // [positions]
};

}  // namespace spectx::eval
