// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "bench/record.hpp"

namespace spectx::bench {

/// What happened in or beside a step, as bits.
enum Cause : unsigned {
  kMoveStarts = 1,    // groups set out for the other tier
  kMoveEnds = 2,      // and have arrived
  kMoving = 4,        // some are on their way
  kJoins = 8,         // a request takes part for the first time
  kLeaves = 16,       // one has left
  kPrompt = 32,       // a chunk of a prompt ran before; its time is not the step's
  kWarms = 64,        // rows of a request's first selection are on their way
  kParks = 128,       // a request went to the host, its groups one by one before
  kResumes = 256,     // and came back
  kCaptures = 512,    // a graph was captured
  kHostGrows = 1024,  // the host tier has grown
  kSkips = 2048,      // tokens were filled in before
  kHostLate = 4096    // the device had nothing to do until the host gave it the step
};
inline constexpr int kNumCauses = 13;
/// Those that a batch brings about by growing, coming and going; the others are the benchmark's own
/// or the host's.
inline constexpr unsigned kChanges = 2 * kCaptures - 1;
const char* cause_name(int bit) noexcept;

/// What a step fetched over the link, as its StepReport says.
struct StepLink {
  index_t bytes = -1;      // -1: no report has arrived
  double transfer_us = 0;  // all gathers
  double exposed_us = 0;

  /// GB/s; 0 where nothing is known or fetched.
  double rate() const {
    return bytes > 0 && transfer_us > 0 ? static_cast<double>(bytes) * 1e-3 / transfer_us : 0;
  }
};

/// One step of all requests that take part, on the device's clock, from the end of the step before.
struct StepTime {
  double ms = 0;
  unsigned causes = 0;
  index_t requests = 1;
  StepLink link{};
};

/// Where things were at the end of a stretch of steps, and what these steps took.
struct Sample {
  double seconds = 0;  // of the device, since the first prompt
  index_t steps = 0;   // so far
  index_t requests = 0, waiting = 0, parked = 0;
  index_t tokens = 0;                       // cached, of all open requests
  double mean_context = 0;                  // of those that take part
  index_t resident_groups = 0, groups = 0;  // of all open requests
  double resident_layers = 0;               // mean of the open requests
  index_t arena_used = 0, host_used = 0, host_total = 0, driver = 0;  // bytes
  double tokens_per_s = 0;
  double step_p50_ms = 0, step_max_ms = 0;
  double exposed_ms = 0, floor_ms = 0;  // of a step
  double miss_rate = 0;
  double moved_mb = 0;  // of a step
};

/// Bytes of the device, by the planner and by the driver.
struct MemoryFigures {
  index_t cap = 0;
  index_t context = 0;      // as soon as the backend was there
  index_t start_up = 0;     // beside the weights, after a few steps: the context and modules
  index_t planned = 0;      // weights, activations and all of spectx
  index_t scratch = 0;      // of it, that operations may take at most
  index_t own = 0;          // the benchmark's: random rows, recorded selections
  index_t driver_peak = 0;  // of all samples

  /// Taken at most beside what was counted, as a share of what was counted.
  double uncounted() const {
    const auto counted = static_cast<double>(planned + own);
    return counted == 0 || driver_peak == 0
               ? 0
               : (static_cast<double>(driver_peak - start_up) - counted) / counted;
  }
};

/// A run in which requests come, grow and go.
struct Timeline {
  Case asked;
  std::string kind;  // "run" or "arrivals"
  std::string error;
  bool is_cut_off = false;  // by its time or a signal; `error` says which
  index_t visits = 0, prompt_tokens = 0, output_tokens = 0;
  index_t skipped_tokens = 0;  // filled in with random rows, in no other figure
  index_t longest = 0;
  double prompt_seconds = 0;  // of the device, all prompts
  double step_seconds = 0;    // and all steps
  double wall_seconds = 0;    // of the host, from the first prompt to the last token
  index_t most_at_once = 0;
  index_t refused = 0;
  index_t waited = 0;  // requests that were not admitted at once
  index_t parks = 0, moves = 0;
  index_t stalled = 0, host_waits = 0;
  index_t graphs = 0;
  bool saw_nan = false;
  MemoryFigures memory;
  std::vector<StepTime> steps;
  std::vector<Sample> samples;

  double tokens_per_s() const {
    return step_seconds > 0 ? static_cast<double>(output_tokens) / step_seconds : 0;
  }
  /// As if the tokens that were filled in had been made in steps like the others.
  double tokens_per_s_with_prompts() const {
    if (step_seconds <= 0) return 0;
    const auto tokens = static_cast<double>(output_tokens + skipped_tokens);
    return tokens / (tokens / tokens_per_s() + prompt_seconds);
  }
};

/// How much longer than their neighbours the steps beside a cause were.
struct Disturbance {
  unsigned cause = 0;                     // one bit; kChanges: any of these; 0: no cause is known
  index_t steps = 0;                      // with it
  index_t longer = 0;                     // of them, 1.2 times and more
  index_t slow_link = 0;                  // of the steps, while the link was slower than usual
  index_t longer_slow_link = 0;           // of the longer ones
  index_t longer_more_bytes = 0;          // of the longer ones, that fetched more than usual
  double median = 0, p99 = 0, worst = 0;  // ratios
  index_t at = 0;                         // the worst step
};

/// What a step is measured by: of two medians, of the eight steps without a cause nearest to it on
/// either side, the one with which the step stands out less. 0 where there are none.
struct Neighbours {
  double ms = 0;     // the longer
  double bytes = 0;  // the more
  double rate = 0;   // of the link, GB/s, the lower

  bool is_link_slower(const StepLink& link) const {
    return link.rate() < kSlower * rate && link.rate() > 0;
  }
  bool has_more_bytes(const StepLink& link) const {
    return static_cast<double>(link.bytes) > kMore * bytes && bytes > 0;
  }
  static constexpr double kSlower = 0.85;
  static constexpr double kMore = 1.15;
};
std::vector<Neighbours> neighbours(const std::vector<StepTime>& steps);
/// A step with several causes counts for each. First those without a cause, then those beside any
/// change: what a change adds is the difference to what steps do by themselves.
std::vector<Disturbance> disturbances(const std::vector<StepTime>& steps);
/// Causes by name, for a reader.
std::string causes_text(unsigned causes);

void write_json(const Machine& machine, const std::vector<Timeline>& all, std::ostream& out);
/// One line a sample.
void write_csv(const std::vector<Timeline>& all, std::ostream& out);
void write_plot(const std::vector<Timeline>& all, std::ostream& out);
std::string markdown(const Timeline& timeline);

}  // namespace spectx::bench
