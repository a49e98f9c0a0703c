// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

#include "spectx/types.hpp"

namespace spectx::support {

/// Progress of a long job on standard error, with rate and time left: a bar that is redrawn on a
/// terminal, a line every few seconds elsewhere.
class Progress {
 public:
  /// @param what  what is done, @param unit  what is counted: "prefill", "tokens"
  Progress(std::string what, std::string unit, index_t total)
      : what_(std::move(what)),
        unit_(std::move(unit)),
        total_(total),
        is_terminal_(::isatty(STDERR_FILENO) == 1),
        start_(Clock::now()),
        shown_(start_) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() {
    if (is_terminal_ && is_drawn_) std::fputs("\r\033[K", stderr);
  }

  void update(index_t done) {
    const auto now = Clock::now();
    const double since = std::chrono::duration<double>(now - shown_).count();
    if (since < (is_terminal_ ? kRedrawSeconds : kLineSeconds)) return;
    shown_ = now;
    show(done, std::chrono::duration<double>(now - start_).count());
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr double kRedrawSeconds = 0.1;
  static constexpr double kLineSeconds = 5;
  static constexpr int kBarCells = 30;

  void show(index_t done, double seconds) {
    const double share = static_cast<double>(done) / static_cast<double>(total_);
    const double rate = static_cast<double>(done) / seconds;
    const double left = static_cast<double>(total_ - done) / rate;
    std::string bar;
    if (is_terminal_) {
      const auto filled = static_cast<std::size_t>(share * kBarCells);
      bar.append("[").append(filled, '#').append(kBarCells - filled, ' ').append("] ");
    }
    std::fprintf(stderr, "%s%s %s%lld / %lld %s, %.0f %s/s, %.0f s left%s",
                 is_terminal_ ? "\r" : "", what_.c_str(), bar.c_str(), static_cast<long long>(done),
                 static_cast<long long>(total_), unit_.c_str(), rate, unit_.c_str(), left,
                 is_terminal_ ? "\033[K" : "\n");
    is_drawn_ = true;
  }

  std::string what_;
  std::string unit_;
  index_t total_;
  bool is_terminal_;
  Clock::time_point start_;
  Clock::time_point shown_;
  bool is_drawn_ = false;
};

}  // namespace spectx::support
