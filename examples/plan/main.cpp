// SPDX-License-Identifier: Apache-2.0
#include <iostream>

#include "plan/report.hpp"
#include "support/program.hpp"

namespace {

int plan(int argc, const char* const* argv) {
  using namespace spectx;
  const auto options = plan::read_options(argc, argv);
  if (!options) {
    std::cout << plan::help_text();
    return 0;
  }
  try {
    MemoryPlanner planner(options->model.shape, options->config);
    const plan::Report report = plan::make_report(*options, planner);
    (options->is_json ? plan::print_json : plan::print_table)(*options, planner, report, std::cout);
  } catch (const OutOfMemory& error) {
    const bool is_device = error.tier() == Tier::device;
    throw Error("not even one request of " + std::to_string(options->config.max_length) +
                " tokens fits: " + error.what() + "; give more " +
                (is_device ? "--device-memory" : "--host-memory") +
                " or a smaller --length, --budget or --hot-buffer");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return spectx::support::run_program("spectx-plan", [&] { return plan(argc, argv); });
}
