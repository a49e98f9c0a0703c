// SPDX-License-Identifier: Apache-2.0
#include "bench/server.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include "support/progress.hpp"
#include "support/stop_signal.hpp"

namespace spectx::bench {

using Clock = std::chrono::steady_clock;

Server::Server(const Bench& bench, const Case& c, const std::vector<Visit>& visits,
               const ServerConfig& config, Timeline& timeline)
    : bench_(bench),
      case_(c),
      visits_(visits),
      config_(config),
      timeline_(timeline),
      backend_(*bench.chosen.backend),
      engine_(backend_, bench.weights, c.is_dense ? nullptr : &bench.head,
              engine_config(bench, c, longest(visits)), bench.memories),
      stamps_(backend_, config.sample_steps),
      turns_{backend_.make_event(), backend_.make_event()},
      step_may_begin_(backend_.make_event()),
      before_(static_cast<std::size_t>(c.requests)) {
  note_plan();
  make_replay();
  engine_.make_graphs(source());
  reported_ = engine_.pipeline().report().step;
  pipe_steps_ = reported_ + 1;
}

void Server::make_replay() {
  const auto shape = scaled_replay_shape(bench_, case_, longest(visits_), engine_.pool());
  if (shape) replay_.emplace(backend_, bench_.trace, *shape, case_.requests);
}

void Server::run() {
  constexpr int kMostIdle = 1000;
  const auto start = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  const support::StopSignal stop;
  support::Progress progress(timeline_.kind, "tokens", tokens_of(visits_));
  for (int idle = 0; !is_done(); ++number_) {
    const bool is_over = config_.seconds > 0 && seconds() > config_.seconds;
    if (is_over || stop.is_asked()) {
      timeline_.is_cut_off = true;
      timeline_.error = is_over ? "cut off: its time was over" : "cut off: it was told to end";
      break;
    }
    Event& turn_event = turns_[static_cast<std::size_t>(number_ % 2)];
    // The host stays at most two turns ahead.
    while (number_ >= 2 && !backend_.is_done(turn_event)) std::this_thread::yield();
    note_report();  // more than one may arrive in a turn
    turn_ = {};
    turn_.is_after_pause = idle > 0;
    const Event& before = turns_[static_cast<std::size_t>((number_ + 1) % 2)];
    note_if_late(before);
    leave();
    admit();
    resume();
    empty_and_park();
    stamps_.begin(engine_.stream());
    turn_.has_prompt = add_prompt();
    turn_.has_skip = !turn_.has_prompt && skip();
    const bool is_first = !turn_.has_prompt && !turn_.has_skip;
    if (!is_first) stamps_.middle(engine_.stream());
    join_and_warm();
    if (!is_first) backend_.record(step_may_begin_, engine_.stream());
    turn_.has_step = has_started_ && !turn_.has_skip && step();
    if (turn_.has_step) {
      note_if_late(is_first ? before : step_may_begin_);
      stamps_.end(engine_.stream());
    }
    backend_.record(turn_event, engine_.stream());
    if (!is_first || turn_.has_step) {
      idle = 0;
      end_turn();
      progress.update(made_);
    } else {
      wait_for_change();
      if (++idle == kMostIdle) throw Error("the planner admits fewer requests at once");
    }
  }
  send_stamps();
  send_stamps();  // the stretch that was sent last
  timeline_.wall_seconds = seconds();
  note_end();
}

/// Requests that have all their tokens.
void Server::leave() {
  const auto has_all = [](const Guest& guest) { return guest.tokens_left() == 0; };
  // A sample of where they were, before nobody is left.
  if (std::all_of(guests_.begin(), guests_.end(), has_all) && !stamps_.is_empty()) send_stamps();
  std::erase_if(guests_, [&](const Guest& guest) {
    if (!has_all(guest)) return false;
    engine_.leave(guest.id);
    engine_.close(guest.id);
    cause(kLeaves);
    return true;
  });
}

void Server::admit() {
  for (; next_visit_ < visits_.size() && visits_[next_visit_].arrives <= number_; ++next_visit_) {
    waiting_.push_back({visits_[next_visit_], false});
  }
  while (!waiting_.empty()) {
    Waiting& first = waiting_.front();
    const index_t length = first.visit.prompt + first.visit.output;
    const Admission answer = engine_.planner().admit(engine_.pool().needs(), length);
    if (answer == Admission::later) {
      timeline_.waited += first.was_counted ? 0 : 1;
      first.was_counted = true;
      return;
    }
    if (answer == Admission::never) ++timeline_.refused;
    if (answer == Admission::now) {
      guests_.push_back({first.visit, engine_.reserve(length)});
      before_[static_cast<std::size_t>(guests_.back().id.value)] = {};
    }
    waiting_.pop_front();
    timeline_.most_at_once = std::max(timeline_.most_at_once, static_cast<index_t>(guests_.size()));
  }
}

/// The next chunk of the first prompt that is not there yet: earlier rows of one request at a time
/// are staged on the device.
bool Server::add_prompt() {
  const auto guest = std::find_if(guests_.begin(), guests_.end(),
                                  [](const Guest& g) { return g.phase == Phase::prompt; });
  if (guest == guests_.end()) return false;
  const index_t count = std::min(bench_.options.chunk_rows, guest->visit.prompt - guest->tokens);
  if (!has_started_) engine_.settle();  // no step would wait
  engine_.add_chunk(guest->id, count, bench_.options.prefills);
  ++pipe_steps_;
  guest->tokens += count;
  timeline_.prompt_tokens += count;
  cause(kPrompt);
  if (guest->tokens == guest->visit.prompt) warm(*guest);
  return true;
}

void Server::warm(Guest& guest) {
  guest.phase = Phase::warming;
  engine_.leave(guest.id);
  engine_.warm({&guest.id, 1}, source());
  cause(kWarms);
}

void Server::join_and_warm() {
  bool all_are_ready = waiting_.empty();
  for (Guest& guest : guests_) {
    const RequestState state = engine_.pool().state(guest.id);
    if (guest.phase == Phase::warming && state == RequestState::ready) {
      guest.phase = Phase::taking_part;
      engine_.join(guest.id);
      cause(kJoins);
    }
    // Its groups have left before all rows of its slots had been chosen.
    if (state == RequestState::prefill && guest.phase != Phase::prompt) warm(guest);
    all_are_ready = all_are_ready && guest.phase >= Phase::taking_part;
  }
  has_started_ = has_started_ || !config_.starts_together || all_are_ready;
}

/// One request at a time sends its groups to the host, one by one and in the background, and is
/// parked then.
void Server::empty_and_park() {
  if (config_.park_every > 0 && number_ > 0 && number_ % config_.park_every == 0 &&
      engine_.pool().plan().has_host_tier() && !engine_.emptied()) {
    Guest* chosen = nullptr;  // the one that stays longest
    for (Guest& guest : guests_) {
      if (guest.phase != Phase::taking_part) continue;
      if (chosen == nullptr || guest.tokens_left() > chosen->tokens_left()) chosen = &guest;
    }
    if (chosen != nullptr && chosen->tokens_left() > config_.park_every) engine_.empty(chosen->id);
  }
  for (Guest& guest : guests_) {
    const bool is_chosen = engine_.emptied() && *engine_.emptied() == guest.id;
    if (!is_chosen || guest.phase != Phase::taking_part) continue;
    if (engine_.pool().resident_groups(guest.id) > 0) continue;
    engine_.empty(std::nullopt);
    engine_.pipeline().park(guest.id, engine_.stream());
    engine_.leave(guest.id);
    guest.phase = Phase::parked;
    guest.back_at = number_ + config_.park_every / 2;
    ++timeline_.parks;
    cause(kParks);
  }
}

/// Parked requests whose time has come, as soon as they can run to their ends beside the others.
void Server::resume() {
  for (Guest& guest : guests_) {
    if (guest.phase != Phase::parked || number_ < guest.back_at) continue;
    const auto now = engine_.pool().needs();
    std::vector<RequestNeed> needs(now.begin(), now.end());
    for (RequestNeed& need : needs) need.is_parked = need.is_parked && !(need.request == guest.id);
    if (!engine_.planner().fits(needs)) continue;
    try {
      engine_.pipeline().resume(guest.id, engine_.stream());
    } catch (const OutOfMemory&) {
      continue;  // moves make room
    }
    warm(guest);
    cause(kResumes);
  }
}

/// Fills tokens in instead of a step, all of a stretch one turn after the other.
bool Server::skip() {
  if (config_.skipped == 0 || !has_started_ || engine_.requests().empty()) return false;
  if (steps_ % config_.skip_after == 0 && steps_ > skipped_at_) {
    skipped_at_ = steps_;
    skips_left_ = config_.skipped;
  }
  index_t count = std::min(skips_left_, engine_.most_filled());
  for (const Guest& guest : guests_) count = std::min(count, guest.tokens_left() - 1);
  if (count <= 0) return false;
  engine_.fill_in(count, source());
  ++pipe_steps_;
  engine_.settle();
  skips_left_ -= count;
  for (Guest& guest : guests_) guest.tokens += guest.phase == Phase::taking_part ? count : 0;
  const index_t tokens = count * static_cast<index_t>(engine_.requests().size());
  timeline_.skipped_tokens += tokens;
  made_ += tokens;
  return true;
}

bool Server::step() {
  if (engine_.requests().empty()) return false;
  if (skipped_at_ > 0 && skipped_at_ == steps_) cause(kSkips);
  const std::size_t graphs = engine_.num_graphs();
  engine_.step(source(), nullptr);
  turn_.pipe_step = pipe_steps_++;
  links_[turn_.pipe_step] = {};
  if (engine_.num_graphs() > graphs) cause(kCaptures);
  for (Guest& guest : guests_) guest.tokens += guest.phase == Phase::taking_part ? 1 : 0;
  turn_.tokens = static_cast<index_t>(engine_.requests().size());
  made_ += turn_.tokens;
  ++steps_;
  return true;
}

/// Nothing was to do but to wait, for moves, rows or who comes next.
void Server::wait_for_change() {
  engine_.place_and_wait();
  if (guests_.empty() && waiting_.empty() && next_visit_ < visits_.size()) {
    number_ = std::max(number_, visits_[next_visit_].arrives - 1);
  }
}

Timeline serve(const Bench& bench, const Case& c, const std::vector<Visit>& visits,
               const ServerConfig& config) {
  Timeline timeline;
  timeline.asked = c;
  timeline.kind = config.starts_together ? "run" : "arrivals";
  timeline.visits = static_cast<index_t>(visits.size());
  timeline.longest = longest(visits);
  timeline.memory.cap = bench.cap;
  timeline.memory.context = bench.context_bytes;
  timeline.memory.start_up = bench.start_up_bytes;
  timeline.memory.own = own_bytes(bench, c, timeline.longest);
  try {
    Server(bench, c, visits, config, timeline).run();
  } catch (const Error& error) {
    timeline.error = error.what();
  }
  return timeline;
}

}  // namespace spectx::bench
