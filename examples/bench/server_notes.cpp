// SPDX-License-Identifier: Apache-2.0
// What a Server writes down.
#include <algorithm>

#include "bench/server.hpp"

namespace spectx::bench {

void Server::end_turn() {
  note_moves();
  note_report();
  stamps_.end_turn(turn_);
  if (stamps_.is_full()) send_stamps();
}

/// Whether the device had done what it was given before.
void Server::note_if_late(const Event& ahead) {
  if (number_ > 0 && !backend_.runs_at_call() && backend_.is_done(ahead)) cause(kHostLate);
}

void Server::note_moves() {
  for (const RequestNeed& need : engine_.pool().needs()) {
    Before& before = before_[static_cast<std::size_t>(need.request.value)];
    if (before.length > 0) {
      const std::int32_t moved = std::abs(need.resident_groups - before.resident);
      timeline_.moves += moved;
      if (moved > 0) cause(kMoveEnds);
      if (need.moving_to >= 0) cause(before.moving_to == need.moving_to ? kMoving : kMoveStarts);
    }
    before = {need.length, need.resident_groups, need.moving_to};
  }
  const index_t host_total = engine_.pool().stats().host_total;
  if (host_total != host_total_) cause(kHostGrows);
  host_total_ = host_total;
}

void Server::note_report() {
  const StepReport& report = engine_.pipeline().report();
  if (report.step < 0 || report.step == reported_) return;
  reported_ = report.step;
  // Reports are some steps late, and those of prompts and tokens that were filled in are none.
  const auto link = links_.find(report.step);
  if (link == links_.end()) return;
  link->second = {report.bytes, report.transfer_us, report.exposed_us};
  ++sums_.reports;
  sums_.hits += report.hits;
  sums_.misses += report.misses;
  sums_.bytes += report.bytes;
  sums_.exposed_us += report.exposed_us;
  sums_.floor_us += report.floor_us;
}

Sample Server::sample() const {
  const auto count = [&](Phase phase) {
    return std::count_if(guests_.begin(), guests_.end(),
                         [&](const Guest& g) { return g.phase == phase; });
  };
  const KVPool& pool = engine_.pool();
  const PoolStats stats = pool.stats();
  Sample s{.steps = steps_,
           .requests = static_cast<index_t>(engine_.requests().size()),
           .waiting = static_cast<index_t>(waiting_.size()),
           .parked = static_cast<index_t>(count(Phase::parked)),
           .arena_used = stats.device_used,
           .host_used = stats.host_used,
           .host_total = stats.host_total,
           .driver = driver_bytes(bench_)};
  index_t layers = 0;
  for (const RequestNeed& need : pool.needs()) {
    s.tokens += need.length;
    s.resident_groups += need.is_parked ? 0 : need.resident_groups;
    s.groups += pool.layout().groups;
    layers += need.is_parked ? 0
                             : std::min(need.resident_groups * pool.plan().group_layers,
                                        pool.shape().cached_layers());
  }
  const double open = static_cast<double>(std::max<std::size_t>(pool.needs().size(), 1));
  s.resident_layers = static_cast<double>(layers) / open;
  for (const RequestId request : engine_.requests()) {
    s.mean_context += static_cast<double>(pool.length(request)) / static_cast<double>(s.requests);
  }
  const double reports = static_cast<double>(std::max<index_t>(sums_.reports, 1));
  s.exposed_ms = sums_.exposed_us * 1e-3 / reports;
  s.floor_ms = sums_.floor_us * 1e-3 / reports;
  s.moved_mb = static_cast<double>(sums_.bytes) * 1e-6 / reports;
  const index_t rows = sums_.hits + sums_.misses;
  s.miss_rate = rows == 0 ? 0 : static_cast<double>(sums_.misses) / static_cast<double>(rows);
  return s;
}

/// Ends the stretch; the times of the one before have come meanwhile.
void Server::send_stamps() {
  sent_.push_back(sample());
  sums_ = {};
  const std::vector<TurnTime> times = stamps_.send(engine_.stream());
  if (times.empty()) return;
  std::vector<double> step_ms;
  double seconds = 0;
  index_t tokens = 0;
  for (const TurnTime& time : times) {
    if (time.turn.has_prompt) timeline_.prompt_seconds += time.before_ms * 1e-3;
    if (!time.turn.has_step) continue;
    const auto link = links_.extract(time.turn.pipe_step);
    timeline_.steps.push_back({time.step_ms, time.turn.causes, time.turn.tokens, link.mapped()});
    step_ms.push_back(time.step_ms);
    seconds += time.step_ms * 1e-3;
    tokens += time.turn.tokens;
  }
  timeline_.step_seconds += seconds;
  timeline_.output_tokens += tokens;
  Sample& s = sent_.front();
  s.seconds = times.back().end_s;
  if (!step_ms.empty()) {
    s.tokens_per_s = static_cast<double>(tokens) / seconds;
    std::sort(step_ms.begin(), step_ms.end());
    s.step_p50_ms = step_ms[step_ms.size() / 2];
    s.step_max_ms = step_ms.back();
  }
  timeline_.memory.driver_peak = std::max(timeline_.memory.driver_peak, s.driver);
  timeline_.samples.push_back(s);
  sent_.pop_front();
}

void Server::note_plan() {
  const MemoryUse use = engine_.planner().predict(engine_.pool().needs());
  timeline_.memory.planned = use.device_total();
  timeline_.memory.scratch = use.scratch;
}

void Server::note_end() {
  const PoolStats stats = engine_.pool().stats();
  timeline_.stalled = stats.stalled_batches;
  timeline_.host_waits = stats.host_waits;
  timeline_.graphs = static_cast<index_t>(engine_.num_graphs());
  timeline_.saw_nan = engine_.saw_nan();
}

index_t driver_bytes(const Bench& bench) {
  if (bench.chosen.name != "cuda") return 0;
  return support::total_device_bytes(bench.chosen) - support::available_device_bytes(bench.chosen);
}

/// A few steps of as many requests as there may be, just above the budget, on a backend of their
/// own, so that only modules stay.
index_t start_up_bytes(const Bench& bench, const Case& c, index_t max_length) {
  constexpr int kSteps = 4;
  if (bench.chosen.name != "cuda") return 0;
  EngineConfig config = engine_config(bench, c, max_length);
  config.max_length = std::min(max_length, c.selection.budget + 2 * kSteps);
  config.host_bytes = 0;
  {
    const support::ChosenBackend own = support::make_backend({.wanted = bench.chosen.name});
    Engine engine(*own.backend, bench.weights, c.is_dense ? nullptr : &bench.head, config,
                  own.backend->memories());
    for (index_t r = 0; r < c.requests && engine.make_room(); ++r) {
      engine.open(config.max_length - kSteps, config.max_length, r == 0);
    }
    for (int n = 0; n < kSteps; ++n) engine.step(nullptr, nullptr);
    engine.synchronize();
  }
  return std::max<index_t>(
      0, driver_bytes(bench) - bench.weights.bytes() - bench.head.storage.bytes());
}

}  // namespace spectx::bench
