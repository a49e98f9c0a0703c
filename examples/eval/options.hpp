// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "eval/selections.hpp"
#include "spectx/retrieval_head.hpp"

namespace spectx::eval {

/// The command line of spectx-eval.
struct Options {
  bool wants_help = false;
  std::string model;
  std::string head;
  std::optional<float> head_theta;  // instead of its file's
  std::vector<std::string> texts;   // files and folders
  std::vector<index_t> lengths;     // ascending
  std::vector<index_t> budgets;     // ascending
  std::vector<Selector> selectors;
  std::vector<double> buffers;  // slots as multiples of the budget
  index_t max_texts = 0;        // 0: all
  index_t positions = 128;
  index_t needles = 5;  // a text; 0: none
  double needle_lead = 0;
  index_t sinks = 4;
  index_t window = 64;
  std::optional<GroupReduce> reduce;  // empty: the head's
  SelectionLevel level = SelectionLevel::head;
  float min_coverage = 0;  // 0: no guard
  index_t max_budget = 0;  // of the guard, as the next two
  bool is_capped = false;
  float hysteresis = SelectionConfig{}.hysteresis;
  std::uint64_t seed = 0;
  index_t jobs = 1;  // texts at once
  std::string backend = "auto";
  int threads = 0;  // of the CPU; 0: one a core
  DType dtype = DType::bf16;
  std::string json;  // empty: none
  std::string csv;
  std::string plots;
};

/// Throws support::UsageError.
Options read_options(int argc, const char* const* argv);

std::string help_text();

/// The first position at which something is measured in a text of `length` tokens.
index_t first_position(const Options& options, index_t length);

/// The most rows that a selection at `budget` may hold in such a text, the guard's too.
index_t most_rows(const Options& options, index_t budget, index_t length);

/// Throws InvalidArgument for a budget that does not hold the forced rows, or that only a part of
/// the measured positions exceeds.
void check_budgets(const Options& options);

}  // namespace spectx::eval
