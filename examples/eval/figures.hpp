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
  double coverage = 1;               // the head's own mass on the selection; of others NaN
  std::vector<double> miss_rates;    // per buffer; empty where every layer has its own set
};

/// The same on all texts.
struct Row {
  Selector selector = Selector::head;
  index_t budget = 0;
  std::vector<TextFigures> texts;

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
    double sum = 0;
    const std::vector<double> layers = layer_recall();
    for (const double r : layers) sum += r;
    return sum / static_cast<double>(layers.size());
  }
  double worst_layer_recall() const {
    double worst = 1;
    for (const double r : layer_recall()) worst = std::min(worst, r);
    return worst;
  }
};

/// Everything that was measured at one length.
struct LengthFigures {
  index_t length = 0;
  std::vector<std::string> texts;
  std::vector<double> full_loss;  // per text
  std::vector<Row> rows;

  double mean_full_loss() const {
    double sum = 0;
    for (const double x : full_loss) sum += x;
    return sum / static_cast<double>(full_loss.size());
  }
};

}  // namespace spectx::eval
