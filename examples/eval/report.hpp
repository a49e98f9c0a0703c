// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "eval/figures.hpp"
#include "eval/options.hpp"

namespace spectx::eval {

struct Report {
  Options options;
  std::string backend;  // "cpu" or "cuda"
  std::string device;
  GroupReduce reduce = GroupReduce::max;  // that was used
  std::vector<LengthFigures> lengths;
};

/// A table of one length for people.
std::string table(const LengthFigures& figures, const Options& options);

void write_json(const Report& report, std::ostream& out);
void write_csv(const Report& report, std::ostream& out);
/// Charts, as SVG.
void write_plots(const Report& report, std::ostream& out);

}  // namespace spectx::eval
