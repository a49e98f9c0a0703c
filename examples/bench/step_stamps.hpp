// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <thread>
#include <vector>

#include "spectx/backend.hpp"

namespace spectx::bench {

/// What the device was given between two turns of a loop: the chunk of a prompt or tokens that are
/// filled in, and a step.
struct Turn {
  bool has_prompt = false, has_skip = false, has_step = false;
  bool is_after_pause = false;  // the device had nothing to do before
  unsigned causes = 0;
  index_t tokens = 0;      // that the step made
  index_t pipe_step = -1;  // the step, as the pipeline's reports number it
};

/// What it took, by the device's clock.
struct TurnTime {
  Turn turn;
  double before_ms = 0;  // the prompt or what is filled in
  double step_ms = 0;    // from the end of the step before if there was one, less before_ms
  double end_s = 0;      // since the first stamp
};

/// Stamps of a loop's turns, read a stretch later so that nobody waits. Not thread-safe.
class StepStamps {
 public:
  StepStamps(Backend& backend, index_t turns_of_stretch)
      : backend_(backend),
        stretch_(turns_of_stretch),
        device_(backend.memories().device, 2 * bytes()),
        host_(backend.memories().host, 2 * bytes()),
        sent_{backend.make_event(), backend.make_event()} {}

  /// Before a turn's work, before its step, and after that.
  void begin(StreamView stream) { mark(0, stream); }
  void middle(StreamView stream) { mark(1, stream); }
  void end(StreamView stream) { mark(2, stream); }
  void end_turn(const Turn& turn) { turns_[half_].push_back(turn); }
  bool is_empty() const { return turns_[half_].empty(); }
  bool is_full() const { return static_cast<index_t>(turns_[half_].size()) == stretch_; }

  /// Ends the stretch and sends its stamps; the times of the one before, in order.
  std::vector<TurnTime> send(StreamView stream) {
    backend_.copy(host_.data() + half_ * at(bytes()), device_.data() + half_ * at(bytes()), bytes(),
                  stream);
    backend_.record(sent_[half_], stream);
    half_ = 1 - half_;
    return read();
  }

 private:
  static constexpr index_t kMarks = 3;
  static std::size_t at(index_t i) noexcept { return static_cast<std::size_t>(i); }
  index_t bytes() const noexcept { return stretch_ * kMarks * 8; }

  void mark(index_t which, StreamView stream) {
    auto* const stamps = reinterpret_cast<std::uint64_t*>(device_.data() + half_ * at(bytes()));
    backend_.stamp(stamps + turns_[half_].size() * at(kMarks) + which, stream);
  }

  std::vector<TurnTime> read() {
    std::vector<TurnTime> times;
    if (turns_[half_].empty()) return times;
    while (!backend_.is_done(sent_[half_])) std::this_thread::yield();
    const auto* stamp = reinterpret_cast<const std::uint64_t*>(host_.data() + half_ * at(bytes()));
    for (const Turn& turn : turns_[half_]) {
      const std::array<std::uint64_t, 3> t = {
          stamp[0], turn.has_prompt || turn.has_skip ? stamp[1] : stamp[0],
          turn.has_step ? stamp[2] : stamp[1]};
      if (first_ == 0) first_ = t[0];
      const double before = ms(t[0], t[1]);
      const bool is_first = end_ == 0 || turn.is_after_pause;
      const double step = turn.has_step ? ms(is_first ? t[0] : end_, t[2]) - before : 0;
      times.push_back({turn, before, step, ms(first_, t[2]) * 1e-3});
      end_ = turn.has_step ? t[2] : 0;
      stamp += kMarks;
    }
    turns_[half_].clear();
    return times;
  }
  static double ms(std::uint64_t from, std::uint64_t to) {
    return to < from ? 0 : static_cast<double>(to - from) * 1e-6;
  }

  Backend& backend_;
  index_t stretch_;
  Buffer device_, host_;  // [2 stretches, turns, begin | middle | end] uint64, ns
  std::array<Event, 2> sent_;
  std::array<std::vector<Turn>, 2> turns_;
  std::size_t half_ = 0;
  std::uint64_t first_ = 0;
  std::uint64_t end_ = 0;  // of the step before; 0: the turn before had none
};

}  // namespace spectx::bench
