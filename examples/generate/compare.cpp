// SPDX-License-Identifier: Apache-2.0
#include "generate/compare.hpp"

#include <algorithm>
#include <cmath>

namespace spectx::generate {
namespace {

constexpr index_t kMostBytes = index_t{1} << 30;

double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum);
}

/// Nats; p and q are the softmax of two rows of logits.
double kl_divergence(std::span<const float> p, std::span<const float> q) {
  const double p_sum = log_sum_exp(p);
  const double q_sum = log_sum_exp(q);
  double kl = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double log_p = static_cast<double>(p[i]) - p_sum;
    const double log_q = static_cast<double>(q[i]) - q_sum;
    kl += std::exp(log_p) * (log_p - log_q);
  }
  return std::max(kl, 0.0);  // rounding
}

}  // namespace

KeptLogits::KeptLogits(index_t max_tokens, index_t vocabulary)
    : vocabulary_(vocabulary),
      max_rows_(std::min(max_tokens, kMostBytes / (vocabulary * index_t{sizeof(float)}))) {
  values_.reserve(static_cast<std::size_t>(max_rows_ * vocabulary));
}

double equal_share(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  std::size_t equal = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) equal += a[i] == b[i] ? 1 : 0;
  return static_cast<double>(equal) / static_cast<double>(std::max(a.size(), b.size()));
}

Comparison compare(llama::Session& session, std::int32_t last, const RunFigures& full,
                   const RunFigures& selected, const KeptLogits& logits,
                   const std::function<void(index_t)>& progress) {
  Comparison result{.equal_tokens = equal_share(full.tokens, selected.tokens),
                    .positions = logits.size()};
  std::int32_t token = last;
  for (index_t n = 0; n < result.positions; ++n) {
    session.step(token, llama::Attention::selected);
    const std::span<const float> wanted = logits.row(n);
    const std::span<const float> got = session.logits();
    result.mean_kl += kl_divergence(wanted, got);
    result.top1_agreement += llama::likeliest(wanted) == llama::likeliest(got) ? 1 : 0;
    token = full.tokens[static_cast<std::size_t>(n)];
    progress(n + 1);
  }
  result.mean_kl /= static_cast<double>(result.positions);
  result.top1_agreement /= static_cast<double>(result.positions);
  return result;
}

}  // namespace spectx::generate
