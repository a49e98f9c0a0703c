// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <ostream>
#include <string>
#include <vector>

#include "bench/engine.hpp"
#include "bench/step_floor.hpp"
#include "spectx/step_model.hpp"

namespace spectx::bench {

/// What one configuration is.
struct Case {
  bool is_dense = false;  // full attention, the same decoder
  index_t context = 0;    // tokens of every request before the first step
  index_t requests = 1;
  SelectionConfig selection;
  double hot_buffer = 2;
  std::optional<DType> host_dtype{};  // of the host tier's rows; none: their own
  index_t copy_blocks = 0;            // 0: the library chooses
  double miss_scale = 1;  // times the recorded trace's misses; 0: the head's own selections
};

/// What it did. Times of a step by the device's clock.
struct Record {
  Case asked;
  std::string error;  // empty: it ran
  StepPrediction predicted;
  std::vector<double> tokens_per_s;  // of each repeat
  std::vector<double> step_ms;       // of every step
  std::string path;
  index_t hits = 0, misses = 0, moved_bytes = 0;  // of all steps that were reported
  index_t reported_steps = 0;
  double transfer_ms = 0, exposed_ms = 0, floor_ms = 0;  // sums over those
  std::array<double, kNumParts> part_ms{};  // of a step, in steps of their own with stamps between
  StepFloor floor{};                        // of the compute stream's operations
  index_t slots = 0;
  index_t groups = 0;          // of all requests
  index_t groups_on_host = 0;  // of all requests
  double fill_seconds = 0;
  index_t host_bytes = 0;
  index_t planned_device_bytes = 0;  // of everything, the context included
  index_t driver_device_bytes = 0;   // that the driver says are taken, the context included
  bool saw_nan = false;

  double mean_tokens_per_s() const;
  double deviation_tokens_per_s() const;
  double percentile_ms(double p) const;  // nearest rank
  double miss_rate() const;
  double per_step(double sum) const;
};

/// What every record carries.
struct Machine {
  std::string backend, device, driver, commit, model, dtype, context_rows, tokens, cap;
  double copy_gb_s = 0;  // that a copy inside the device reads and writes, 1e9 bytes a second
};

void write_json(const Machine& machine, const std::vector<Record>& records, std::ostream& out);
void write_csv(const Machine& machine, const std::vector<Record>& records, std::ostream& out);
std::string markdown_head();
std::string markdown_row(const Record& record);
std::string markdown_parts(const std::vector<Record>& records);

}  // namespace spectx::bench
