// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "bench/record.hpp"
#include "bench/visits.hpp"

namespace spectx::bench {

/// A set of cases on the command line of spectx-bench.
struct Options {
  bool wants_help = false;
  std::string model = "smollm2-135m";
  std::string backend = "auto";
  int threads = 0;
  DType dtype = DType::bf16;
  std::vector<index_t> contexts;
  std::vector<std::string> requests;  // numbers, "max" or "best"
  std::vector<std::string> modes;     // "spectx", "dense"
  std::vector<double> hot_buffers;
  std::vector<double> miss_scales;
  std::vector<std::string> host_dtypes;  // "own", "fp8", "int8"
  SelectionConfig selection;
  index_t device_bytes = 0;  // cap, everything included; 0: the device's memory
  index_t host_bytes = 0;
  index_t chunk_rows = 2048;
  index_t warm_up = 40;
  index_t steps = 24;  // of a repeat
  index_t repeats = 3;
  index_t profiled = 4;  // steps with stamps between their parts
  std::vector<index_t> copy_blocks;
  bool prefills = false;
  bool captures = false;      // steps as CUDA graphs
  bool offloads_all = false;  // every layer to the host, whatever the planner says
  double seconds = 0;         // of this set; no new case is begun then; 0: no limit
  bool is_run = false;        // --run: `arrivals` has its prompt and output
  Arrivals arrivals;          // --arrivals, if its count is positive
  index_t sample_steps = 64;  // of a stretch of either
  Range skip{0, 0};           // after so many steps so many tokens
  std::string trace;
  std::string commit;
  std::string json, csv, plot;
  std::string spans;    // empty: none
  std::string kernels;  // likewise

  /// Requests come and grow; else steps are measured at given contexts.
  bool has_visits() const { return is_run || arrivals.count > 0; }
};

/// One set, and one more for each --next. Throws support::UsageError.
std::vector<Options> read_options(int argc, const char* const* argv);
std::string help_text();

}  // namespace spectx::bench
