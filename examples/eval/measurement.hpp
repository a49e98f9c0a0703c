// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "eval/attention_map.hpp"
#include "eval/figures.hpp"
#include "eval/page_bounds.hpp"
#include "eval/predictions.hpp"
#include "eval/runner.hpp"

namespace spectx::eval {

struct MeasurementConfig {
  std::vector<Selector> selectors;
  std::vector<index_t> budgets;  // ascending; above the runner's only those that hold every text
  index_t length = 0;            // most tokens of a text
  SelectionConfig rule;          // sinks and window; max_budget (0: twice the budget) and
                                 // what follows it are Selector::guard's
  std::uint64_t seed = 0;        // of Selector::random
};

/// Measures the last tokens of a text, one by one as decode steps that are given the text itself:
/// once with full attention, where recall is measured on the target's own attention, then with
/// every selector and budget. The head chooses for itself in every step; the others' selections are
/// those of the full run, replayed.
class Measurement {
 public:
  using Key = std::pair<Selector, index_t>;  // and budget

  Measurement(Runner& runner, const ModelShape& shape, const MeasurementConfig& config);

  const std::vector<Key>& keys() const noexcept { return keys_; }
  bool holds_all(index_t budget) const { return budget >= config_.length; }

  /// The target's own run: its attention, what every selector would have chosen, its logits. The
  /// runner holds the first tokens already.
  /// @param tokens  of the whole text, the last is only predicted; valid until the last replay
  /// @param first   position of the first step; the runner has at least so many tokens
  void full_run(std::span<const std::int32_t> tokens, index_t first,
                const Runner::Progress& progress);
  /// Mean over the steps of the full run.
  double full_loss() const;
  /// Whether every step of the full run found the text's next token the likeliest.
  bool full_is_right() const;
  /// The least of the steps, in logits.
  double full_lead() const;
  /// The same steps, each layer reading what was selected.
  TextFigures replay(Key key, const Runner::Progress& progress);
  /// The selections of the full run; null where the budget holds all, and of the guard.
  const Recorded* recorded(Key key) const {
    const auto found = recorded_.find(key);
    return found == recorded_.end() ? nullptr : &found->second;
  }

 private:
  bool has(Selector s) const;
  index_t num_steps() const { return static_cast<index_t>(tokens_.size()) - 1 - first_; }
  std::int32_t next(index_t step) const {
    return tokens_[static_cast<std::size_t>(first_ + step + 1)];
  }
  void begin_recording();
  const Selection& record_head(const Batch& batch);
  void score_pages();
  void record_baselines();
  void scores_of(Selector selector, index_t layer, index_t kv_head, std::span<float> scores);
  void add_recall(Key key);
  SelectionConfig rule_of(Key key) const;
  StepHooks replay_hooks(Key key, const index_t& step);
  const Selection& select_guarded(const Batch& batch);
  const Selection& replayed(Key key, index_t step);
  const Selection& everything();

  Runner& runner_;
  ModelShape shape_;
  MeasurementConfig config_;
  std::vector<Key> keys_;
  HostCopy host_;
  AttentionMap map_;
  PageBounds pages_;
  Predictions full_;
  std::mt19937_64 random_;
  std::span<const std::int32_t> tokens_;  // of the text
  index_t first_ = 0;                     // position of the first step
  index_t step_ = 0;                      // of the full run
  double rows_ = 0;                       // that the guard took, sum over steps
  std::map<Key, Recorded> recorded_;
  std::map<Key, std::vector<double>> recall_;   // [layers] sums over steps and heads
  std::map<Key, double> coverage_;              // the same
  std::vector<float> scores_;                   // [length] of one list
  std::vector<float> page_scores_;              // [layers, kv_heads, length]
  std::vector<std::span<std::int32_t>> rooms_;  // of one list, at every budget
  std::vector<std::int32_t> upload_;            // [sets, kv_heads, max_budget] of one step
  Buffer device_selection_;
  Selection selection_;  // in it: [layers, kv_heads, max_budget]
};

}  // namespace spectx::eval
