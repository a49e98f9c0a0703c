// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <map>

#include "bench/measure.hpp"
#include "bench/replay.hpp"
#include "bench/step_stamps.hpp"
#include "bench/timeline.hpp"
#include "bench/visits.hpp"

namespace spectx::bench {

struct ServerConfig {
  bool starts_together = false;  // no step before all prompts are there
  index_t park_every = 0;        // as Arrivals has it
  index_t sample_steps = 64;
  double seconds = 0;      // the run is cut off then; 0: no limit
  index_t skip_after = 0;  // steps; then `skipped` tokens of every request are filled in
  index_t skipped = 0;
};

/// A loop in which requests arrive, are admitted or wait, have their prompt, are warmed, take part,
/// are parked and resumed, and leave, while the planner moves groups of layers between all steps.
class Server {
 public:
  /// Throws OutOfMemory, InvalidArgument.
  Server(const Bench& bench, const Case& c, const std::vector<Visit>& visits,
         const ServerConfig& config, Timeline& timeline);

  /// Throws OutOfMemory where the planner has admitted too much.
  void run();

 private:
  enum class Phase : std::uint8_t { prompt, warming, taking_part, parked };
  struct Guest {
    Visit visit;
    RequestId id;
    Phase phase = Phase::prompt;
    index_t tokens = 0;   // so far
    index_t back_at = 0;  // turn, of one that is parked

    index_t tokens_left() const { return visit.prompt + visit.output - tokens; }
  };
  struct Waiting {
    Visit visit;
    bool was_counted = false;
  };
  struct Before {
    index_t length = 0;
    std::int32_t resident = 0, moving_to = -1;
  };
  /// Of the reports of a stretch.
  struct Sums {
    index_t reports = 0, hits = 0, misses = 0, bytes = 0;
    double exposed_us = 0, floor_us = 0;
  };

  void make_replay();
  void leave();
  void admit();
  bool add_prompt();
  void warm(Guest& guest);
  void join_and_warm();
  void empty_and_park();
  void resume();
  bool skip();
  bool step();
  void wait_for_change();
  // Notes:
  void note_plan();
  void note_if_late(const Event& ahead);
  void end_turn();
  void note_moves();
  void note_report();
  void send_stamps();
  void note_end();
  Sample sample() const;
  void cause(Cause what) { turn_.causes |= what; }
  SelectionSource* source() { return replay_ ? &*replay_ : nullptr; }
  bool is_done() const {
    return next_visit_ == visits_.size() && waiting_.empty() && guests_.empty();
  }

  const Bench& bench_;
  const Case& case_;
  const std::vector<Visit>& visits_;
  ServerConfig config_;
  Timeline& timeline_;
  Backend& backend_;
  Engine engine_;
  std::optional<Replay> replay_;
  StepStamps stamps_;
  std::array<Event, 2> turns_;
  Event step_may_begin_;  // in a turn in which something else is first
  std::size_t next_visit_ = 0;
  std::deque<Waiting> waiting_;
  std::vector<Guest> guests_;
  Turn turn_;
  index_t number_ = 0;  // of the turn
  index_t steps_ = 0;
  index_t made_ = 0;            // tokens, with those that were filled in
  index_t skips_left_ = 0;      // tokens
  index_t skipped_at_ = 0;      // step
  bool has_started_ = false;    // all prompts that steps wait for are there
  std::vector<Before> before_;  // [max_requests] needs after the turn before
  index_t host_total_ = 0;
  index_t pipe_steps_ = 0;             // that the pipeline was given
  index_t reported_ = -1;              // the last of them whose report is there
  std::map<index_t, StepLink> links_;  // of steps by that number, until their times come
  Sums sums_;
  std::deque<Sample> sent_;  // whose times are not there yet
};

/// What the driver says is taken of the device; 0 without one.
index_t driver_bytes(const Bench& bench);
/// The same beside the weights, after a few steps of a small pool: context and modules.
index_t start_up_bytes(const Bench& bench, const Case& c, index_t max_length);

/// `visits` to a pool of c.requests at once. What stops it is in the timeline.
Timeline serve(const Bench& bench, const Case& c, const std::vector<Visit>& visits,
               const ServerConfig& config);

}  // namespace spectx::bench
