// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "plan/model_source.hpp"
#include "spectx/step_model.hpp"
#include "support/args.hpp"

namespace spectx::plan {

/// What spectx-plan was asked.
struct Options {
  ModelSource model;
  PlannerConfig config;
  std::optional<MachineRates> rates;
  bool is_json = false;
};

std::string help_text();
/// Nothing when only help was asked for. Throws UsageError, FileError, Unsupported.
std::optional<Options> read_options(int argc, const char* const* argv);

}  // namespace spectx::plan
