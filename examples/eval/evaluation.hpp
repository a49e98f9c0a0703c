// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "eval/measurement.hpp"
#include "eval/needles.hpp"

namespace spectx::eval {

struct EvaluationConfig {
  MeasurementConfig measurement;
  index_t positions = 128;      // of the last tokens, measured
  index_t needles = 0;          // hidden in each text
  std::vector<double> buffers;  // slots as multiples of the budget
};

/// Adds up what is measured on texts of one length.
class Evaluation {
 public:
  Evaluation(Runner& runner, const ModelShape& shape, const EvaluationConfig& config);

  /// What add_text and add_needles report as done, a text.
  index_t tokens_of_text() const;
  /// The text's last positions. @param tokens  [length + 1], the last is only predicted
  void add_text(const std::string& name, std::span<const std::int32_t> tokens,
                const Runner::Progress& progress);
  /// The needles hidden in the text; one that full attention does not find is left out.
  void add_needles(std::span<const std::int32_t> tokens, const llama::Tokenizer& tokenizer,
                   const Runner::Progress& progress);
  const LengthFigures& figures() const noexcept { return figures_; }

 private:
  std::vector<double> miss_rates(Measurement::Key key) const;
  void ask(const Haystack& haystack, std::size_t needle);

  Runner& runner_;
  EvaluationConfig config_;
  Measurement measurement_;
  LengthFigures figures_;
};

}  // namespace spectx::eval
