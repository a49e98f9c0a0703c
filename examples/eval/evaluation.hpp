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
  double needle_lead = 0;       // of full attention, in logits, where one counts
  std::vector<double> buffers;  // slots as multiples of the budget
};

/// Measures texts of one length.
class Evaluation {
 public:
  Evaluation(Runner& runner, const ModelShape& shape, const EvaluationConfig& config);

  /// One text: its last positions, and the needles hidden in it; one that full attention does not
  /// find is left out.
  /// @param tokens  [length + 1], the last is only predicted
  /// @param number  of the text: the needles' numbers follow from it
  LengthFigures measure(const std::string& name, std::span<const std::int32_t> tokens,
                        const llama::Tokenizer& tokenizer, std::uint64_t number,
                        const Runner::Progress& progress);

 private:
  void begin();
  void add_text(const std::string& name, std::span<const std::int32_t> tokens,
                const Runner::Progress& progress);
  void add_needles(std::span<const std::int32_t> tokens, const llama::Tokenizer& tokenizer,
                   std::uint64_t number, const Runner::Progress& progress);
  std::vector<double> miss_rates(Measurement::Key key) const;
  void ask(const Haystack& haystack, std::size_t needle);

  Runner& runner_;
  EvaluationConfig config_;
  Measurement measurement_;
  LengthFigures figures_;  // of the text
};

/// What Evaluation::measure reports as done, for a text in which `rows` selections are replayed.
inline index_t tokens_of_text(index_t length, index_t positions, index_t rows, bool has_needles) {
  return length - positions + positions * (1 + rows) + (has_needles ? length : 0);
}

}  // namespace spectx::eval
