// SPDX-License-Identifier: Apache-2.0
#include "generate/run.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>

namespace spectx::generate {
namespace {

using Clock = std::chrono::steady_clock;

/// Text as it comes, on standard output and kept.
class TextStream {
 public:
  explicit TextStream(const llama::Tokenizer& tokenizer) : decoder_(tokenizer) {}

  void push(std::int32_t token) { show(decoder_.push(token)); }
  std::string finish() {
    show(decoder_.finish());
    if (!text_.ends_with('\n')) std::fputc('\n', stdout);
    check(std::fflush(stdout) == 0 && std::ferror(stdout) == 0);
    return std::move(text_);
  }

 private:
  void show(const std::string& text) {
    if (text.empty()) return;
    text_ += text;
    check(std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
          std::fflush(stdout) == 0);
  }
  static void check(bool is_written) {
    if (!is_written) throw FileError("standard output cannot be written");
  }

  llama::StreamDecoder decoder_;
  std::string text_;
};

void add(RunFigures& sums, const llama::StepFigures& step) {
  sums.rows += step.rows;
  sums.replayed += step.is_replayed ? 1 : 0;
  sums.guard_raised += step.guard == GuardOutcome::raised ? 1 : 0;
  sums.guard_full += step.guard == GuardOutcome::full ? 1 : 0;
  sums.guard_limited += step.guard == GuardOutcome::limited ? 1 : 0;
  sums.kv_bytes += step.kv_bytes;
  sums.key_bytes += step.key_bytes;
  sums.hits += step.hits;
  sums.misses += step.misses;
  sums.moved_bytes += step.moved_bytes;
  sums.attend_seconds += step.attend_seconds;
  sums.head_seconds += step.head_seconds;
  sums.coverage += step.coverage;
  sums.least_coverage = std::min(sums.least_coverage, step.least_coverage);
  sums.path = path_name(step.path);
}

}  // namespace

double RunFigures::seconds() const {
  return std::accumulate(step_seconds.begin(), step_seconds.end(), 0.0);
}

double RunFigures::percentile_seconds(double p) const {
  std::vector<double> sorted = step_seconds;
  std::sort(sorted.begin(), sorted.end());
  const auto rank = static_cast<std::size_t>(std::ceil(p * static_cast<double>(sorted.size())));
  return sorted[std::clamp<std::size_t>(rank, 1, sorted.size()) - 1];
}

RunFigures run(llama::Session& session, const llama::Tokenizer& tokenizer, std::int32_t last,
               const RunConfig& config, const OnLogits& on_logits) {
  llama::Sampler sampler(config.sampling);
  TextStream text(tokenizer);
  RunFigures figures;
  figures.step_seconds.reserve(static_cast<std::size_t>(config.max_tokens));
  std::int32_t token = last;
  for (index_t n = 0; n < config.max_tokens && !figures.has_ended; ++n) {
    const auto start = Clock::now();
    session.step(token, config.attention);
    token = sampler.is_greedy() ? session.likeliest() : sampler.sample(session.logits());
    figures.step_seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    figures.tokens.push_back(token);
    add(figures, session.figures());
    if (on_logits) on_logits(session.logits());
    figures.has_ended = config.stops && tokenizer.ends_text(token);
    if (!figures.has_ended) text.push(token);
  }
  figures.text = text.finish();
  figures.coverage /= static_cast<double>(figures.step_seconds.size());
  return figures;
}

}  // namespace spectx::generate
