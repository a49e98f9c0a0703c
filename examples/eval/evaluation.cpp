// SPDX-License-Identifier: Apache-2.0
#include "eval/evaluation.hpp"

#include <cmath>

#include "eval/slot_replay.hpp"

namespace spectx::eval {

Evaluation::Evaluation(Runner& runner, const ModelShape& shape, const EvaluationConfig& config)
    : runner_(runner), config_(config), measurement_(runner, shape, config.measurement) {}

void Evaluation::begin() {
  figures_ = {};
  figures_.length = config_.measurement.length;
  for (const auto& [selector, budget] : measurement_.keys()) {
    figures_.rows.push_back({selector, budget, {}, {}});
    figures_.rows.back().needles.resize(static_cast<std::size_t>(config_.needles));
  }
}

LengthFigures Evaluation::measure(const std::string& name, std::span<const std::int32_t> tokens,
                                  const llama::Tokenizer& tokenizer, std::uint64_t number,
                                  const Runner::Progress& progress) {
  begin();
  add_text(name, tokens, progress);
  if (config_.needles > 0) add_needles(tokens, tokenizer, number, progress);
  return figures_;
}

void Evaluation::add_text(const std::string& name, std::span<const std::int32_t> tokens,
                          const Runner::Progress& progress) {
  const index_t first = figures_.length - config_.positions;
  runner_.begin(tokens.first(static_cast<std::size_t>(first)), progress);
  measurement_.full_run(tokens, first, progress);
  figures_.texts.push_back(name);
  figures_.full_loss.push_back(measurement_.full_loss());
  for (Row& row : figures_.rows) {
    const Measurement::Key key{row.selector, row.budget};
    row.texts.push_back(measurement_.replay(key, progress));
    row.texts.back().miss_rates = miss_rates(key);
  }
}

std::vector<double> Evaluation::miss_rates(Measurement::Key key) const {
  if (is_per_layer(key.first) || key.first == Selector::guard) return {};
  std::vector<double> rates(config_.buffers.size());
  const Recorded* const recorded = measurement_.recorded(key);
  if (recorded == nullptr) return rates;
  for (std::size_t b = 0; b < rates.size(); ++b) {
    const double slots = std::ceil(config_.buffers[b] * static_cast<double>(key.second));
    rates[b] = miss_rate(runner_.backend(), runner_.stream(), *recorded,
                         figures_.length - config_.positions, static_cast<index_t>(slots));
  }
  return rates;
}

void Evaluation::add_needles(std::span<const std::int32_t> tokens,
                             const llama::Tokenizer& tokenizer, std::uint64_t number,
                             const Runner::Progress& progress) {
  const Haystack haystack =
      make_haystack(tokens, figures_.length, config_.needles, tokenizer, number);
  figures_.depths.resize(haystack.needles.size());
  runner_.begin(haystack.tokens);
  for (std::size_t n = 0; n < haystack.needles.size(); ++n) ask(haystack, n);
  progress(figures_.length);
}

void Evaluation::ask(const Haystack& haystack, std::size_t needle) {
  const Needle& asked = haystack.needles[needle];
  std::vector<std::int32_t> tokens = haystack.tokens;
  tokens.insert(tokens.end(), asked.question.begin(), asked.question.end());
  const auto first = static_cast<index_t>(tokens.size()) - 1;
  runner_.rewind(static_cast<index_t>(haystack.tokens.size()));
  runner_.extend(std::span(asked.question).first(asked.question.size() - 1));
  tokens.insert(tokens.end(), asked.answer.begin(), asked.answer.end());

  const auto ignore = [](index_t) {};
  measurement_.full_run(tokens, first, ignore);
  NeedleDepth& depth = figures_.depths[needle];
  depth.depth = asked.depth;
  ++depth.hidden;
  if (!measurement_.full_is_right() || measurement_.full_lead() < config_.needle_lead) return;
  ++depth.found;
  for (Row& row : figures_.rows) {
    const TextFigures found = measurement_.replay({row.selector, row.budget}, ignore);
    row.needles[needle] += found.is_right ? 1 : 0;
  }
}

}  // namespace spectx::eval
