// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <random>
#include <span>
#include <vector>

#include "eval/attention_map.hpp"
#include "eval/figures.hpp"
#include "eval/page_bounds.hpp"
#include "eval/predictions.hpp"
#include "eval/runner.hpp"

namespace spectx::eval {

struct EvaluationConfig {
  std::vector<Selector> selectors;
  std::vector<index_t> budgets;  // ascending; above max_budget only those that hold the whole text
  index_t length = 0;            // tokens of a text that are read
  index_t positions = 128;       // of the last tokens, measured
  SelectionConfig rule;          // sinks and window
  std::vector<double> buffers;   // slots as multiples of the budget
  std::uint64_t seed = 0;        // of Selector::random
};

/// Measures a text: its last tokens one by one as decode steps that are given the text itself,
/// once with full attention, where recall is measured on the target's own attention, then once for
/// every selector and budget. The head chooses for itself in every step; the others' selections are
/// those of the full run, replayed.
class Evaluation {
 public:
  Evaluation(Runner& runner, const ModelShape& shape, const EvaluationConfig& config);

  /// Steps of the model that measure() takes, prefilled tokens aside.
  index_t steps() const;
  /// Adds a text's figures. @param tokens  [length + 1], the last is only predicted
  void measure(const std::string& name, std::span<const std::int32_t> tokens,
               const Runner::Progress& progress);
  const LengthFigures& figures() const noexcept { return figures_; }

 private:
  using Key = std::pair<Selector, index_t>;  // and budget

  bool holds_all(index_t budget) const { return budget >= config_.length; }
  bool has(Selector s) const;
  Row& row(Key key);
  void full_run(const Runner::Progress& progress);
  const Selection& record_head(const Batch& batch);
  void look(index_t layer, const Batch& batch, const llama::LlamaDecoder::Qkv& qkv, KVView& rows);
  void record_baselines();
  void scores_of(Selector selector, index_t layer, index_t kv_head, std::span<float> scores);
  void add_recall(Key key);
  void replay(Key key, const Runner::Progress& progress);
  const Selection& replayed(Key key, index_t step);
  const Selection& everything();
  void finish_text(const std::string& name);

  Runner& runner_;
  ModelShape shape_;
  EvaluationConfig config_;
  HostCopy host_;
  AttentionMap map_;
  PageBounds pages_;
  Predictions full_;
  std::mt19937_64 random_;
  std::span<const std::int32_t> tokens_;  // of the text
  index_t step_ = 0;                      // of the full run
  std::map<Key, Recorded> recorded_;
  std::map<Key, TextFigures> text_;
  std::vector<float> scores_;       // [length] of one list
  std::vector<float> keys_;         // [kv_heads * k_dim]
  std::vector<float> page_scores_;  // [layers, kv_heads, length]
  Buffer device_selection_;
  Selection selection_;  // in it: [layers, kv_heads, max_budget]
  LengthFigures figures_;
};

}  // namespace spectx::eval
