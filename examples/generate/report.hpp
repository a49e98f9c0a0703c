// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "generate/compare.hpp"
#include "generate/options.hpp"
#include "generate/prompt.hpp"
#include "generate/run.hpp"

namespace spectx::generate {

/// Everything that the program found out.
struct Report {
  Options options;
  std::string backend{};  // that was taken: "cpu" or "cuda"
  std::string device{};
  std::string driver{};        // of a GPU
  bool has_host_tier = false;  // the backend keeps two memories apart
  Prompt prompt{};
  double prefill_seconds = 0;
  std::optional<RunFigures> full{};
  std::optional<RunFigures> selected{};
  std::optional<Comparison> comparison{};
  llama::MemoryFigures memory{};
  index_t model_bytes = 0;  // weights and activations
  index_t head_bytes = 0;   // weights
  std::vector<std::string> head_notes{};
  index_t peak_bytes = 0;  // of the process, the mapped model file included

  /// The run that the user asked for.
  const RunFigures& main_run() const { return selected ? *selected : *full; }
};

/// A summary of one run, or the table that compares two. For people.
std::string summary(const Report& report);

/// The same figures as JSON, with prompt_token_ids and token_ids.
void write_json(const Report& report, std::ostream& out);

}  // namespace spectx::generate
