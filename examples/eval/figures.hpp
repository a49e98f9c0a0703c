// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "eval/selections.hpp"

namespace spectx::eval {

/// One selector at one budget on one text; means over the measured positions.
struct TextFigures {
  std::vector<double> layer_recall;  // [layers] share of the target's attention on the selection
  double loss = 0;                   // of the next token, nats
  double loss_increase = 0;          // over that of full attention
  double agreement = 0;              // share of positions with full attention's likeliest token
  double kl = 0;                     // nats, full attention || this
  double overlap = 1;                // share of a step's rows that the step before had
  double rows = 0;                   // that a KV head read in a step
  double coverage = 1;               // the head's own mass on the selection; of others NaN
  bool is_right = true;              // the text's token was the likeliest at every position
  std::vector<double> miss_rates;    // per buffer; empty where every layer has its own set

  double recall() const {
    double sum = 0;
    for (const double r : layer_recall) sum += r;
    return sum / static_cast<double>(layer_recall.size());
  }
};

/// The same on all texts.
struct Row {
  Selector selector = Selector::head;
  index_t budget = 0;
  std::vector<TextFigures> texts;
  std::vector<index_t> needles;  // per depth: found, of those that full attention finds

  /// Mean over texts of `value(figures)`.
  template <class Value>
  double mean(Value&& value) const {
    double sum = 0;
    for (const TextFigures& t : texts) sum += value(t);
    return sum / static_cast<double>(texts.size());
  }
  double mean(double TextFigures::*member) const {
    return mean([&](const TextFigures& t) { return t.*member; });
  }
  /// Of the mean over texts; NaN for one text.
  double standard_error(double TextFigures::*member) const {
    const double middle = mean(member);
    const double squares =
        mean([&](const TextFigures& t) { return (t.*member - middle) * (t.*member - middle); });
    return std::sqrt(squares / static_cast<double>(texts.size() - 1));
  }
  std::vector<double> layer_recall() const {
    std::vector<double> layers;
    for (std::size_t l = 0; l < texts.front().layer_recall.size(); ++l) {
      layers.push_back(mean([&](const TextFigures& t) { return t.layer_recall[l]; }));
    }
    return layers;
  }
  double recall() const {
    return mean([](const TextFigures& t) { return t.recall(); });
  }
  double worst_layer_recall() const {
    double worst = 1;
    for (const double r : layer_recall()) worst = std::isnan(r) ? r : std::min(r, worst);
    return worst;
  }
};

/// Needles at one depth, of all texts.
struct NeedleDepth {
  double depth = 0;    // place in the text, 0 to 1
  index_t hidden = 0;  // and asked for
  index_t found = 0;   // by full attention
};

/// Everything that was measured at one length.
struct LengthFigures {
  index_t length = 0;
  std::vector<std::string> texts;
  std::vector<double> full_loss;  // per text
  std::vector<Row> rows;
  std::vector<NeedleDepth> depths;  // empty: no needles

  /// Adds other texts, measured in the same way.
  void add(const LengthFigures& other) {
    if (texts.empty()) {
      *this = other;
      return;
    }
    texts.insert(texts.end(), other.texts.begin(), other.texts.end());
    full_loss.insert(full_loss.end(), other.full_loss.begin(), other.full_loss.end());
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const Row& its = other.rows[r];
      rows[r].texts.insert(rows[r].texts.end(), its.texts.begin(), its.texts.end());
      for (std::size_t d = 0; d < depths.size(); ++d) rows[r].needles[d] += its.needles[d];
    }
    for (std::size_t d = 0; d < depths.size(); ++d) {
      depths[d].hidden += other.depths[d].hidden;
      depths[d].found += other.depths[d].found;
    }
  }

  /// Of the needles that full attention finds, the share that the row's selector finds; NaN where
  /// there are none.
  double needles_found(const Row& row) const {
    index_t full = 0;
    index_t found = 0;
    for (std::size_t d = 0; d < depths.size(); ++d) {
      full += depths[d].found;
      found += row.needles[d];
    }
    return full == 0 ? std::nan("") : static_cast<double>(found) / static_cast<double>(full);
  }
  double mean_full_loss() const {
    double sum = 0;
    for (const double x : full_loss) sum += x;
    return sum / static_cast<double>(full_loss.size());
  }
};

}  // namespace spectx::eval
