// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <iosfwd>

#include "plan/options.hpp"

namespace spectx::plan {

/// Where the layers are when all requests have one length.
struct LengthRow {
  index_t length = 0;
  index_t requests_at_once = 0;  // of that final length
  index_t groups_on_host = 0;    // fewest, of all of them together
  double layers_on_device = 0;   // mean of a request
};

/// All that spectx-plan says.
struct Report {
  MemoryUse use;        // of an empty pool
  MemoryUse full;       // with as many requests as fit at --length
  index_t at_once = 0;  // requests of --length
  std::vector<index_t> thresholds;
  index_t threshold_requests = 0;
  std::vector<LengthRow> lengths;
  std::optional<StepPrediction> step;  // of at_once requests
  std::optional<StepPrediction> best;
};

Report make_report(const Options& options, MemoryPlanner& planner);
void print_table(const Options& options, const MemoryPlanner& planner, const Report& report,
                 std::ostream& out);
void print_json(const Options& options, const MemoryPlanner& planner, const Report& report,
                std::ostream& out);
const char* model_name(PlannerModel model);

}  // namespace spectx::plan
