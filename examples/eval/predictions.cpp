// SPDX-License-Identifier: Apache-2.0
#include "eval/predictions.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>

namespace spectx::eval {
namespace {

using Array = Eigen::Map<const Eigen::ArrayXf>;

Array array(std::span<const float> x) { return {x.data(), static_cast<Eigen::Index>(x.size())}; }

double log_sum_exp(std::span<const float> logits) {
  const float top = array(logits).maxCoeff();
  const double sum = (array(logits) - top).exp().cast<double>().sum();
  return static_cast<double>(top) + std::log(sum);
}

std::int32_t likeliest_of(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

void Predictions::clear() {
  logits_.clear();
  log_sum_.clear();
}

void Predictions::add(std::span<const float> logits) {
  logits_.insert(logits_.end(), logits.begin(), logits.end());
  log_sum_.push_back(log_sum_exp(logits));
}

double Predictions::loss(index_t position, std::int32_t next) const {
  return log_sum_[static_cast<std::size_t>(position)] -
         static_cast<double>(row(position)[static_cast<std::size_t>(next)]);
}

std::int32_t Predictions::likeliest(index_t position) const { return likeliest_of(row(position)); }

double Predictions::lead(index_t position, std::int32_t next) const {
  const std::span<const float> logits = row(position);
  const auto at = static_cast<std::size_t>(next);
  float other = -std::numeric_limits<float>::infinity();
  for (const std::span<const float> part : {logits.first(at), logits.subspan(at + 1)}) {
    for (const float logit : part) other = std::max(other, logit);
  }
  return static_cast<double>(logits[at]) - static_cast<double>(other);
}

Predictions::Difference Predictions::compare(index_t position, std::span<const float> logits,
                                             std::int32_t next) const {
  const std::span<const float> full = row(position);
  const double full_sum = log_sum_[static_cast<std::size_t>(position)];
  const double sum = log_sum_exp(logits);
  const auto weights = (array(full) - static_cast<float>(full_sum)).exp();
  const double moved = (weights * (array(full) - array(logits))).cast<double>().sum();
  return {.loss = sum - static_cast<double>(logits[static_cast<std::size_t>(next)]),
          .kl = std::max(0.0, moved - (full_sum - sum)),  // rounding
          .agrees = likeliest_of(full) == likeliest_of(logits),
          .is_right = likeliest_of(logits) == next};
}

}  // namespace spectx::eval
