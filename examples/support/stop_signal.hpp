// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <csignal>

namespace spectx::support {

/// While it lives, SIGTERM and a first SIGINT ask to end instead of ending the program; `timeout`
/// sends SIGTERM, twice at times. One at a time.
class StopSignal {
 public:
  StopSignal() noexcept {
    is_asked_ = 0;
    for (std::size_t i = 0; i < kSignals.size(); ++i) before_[i] = std::signal(kSignals[i], note);
  }
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  ~StopSignal() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) std::signal(kSignals[i], before_[i]);
  }
  /// Since the last one was made.
  static bool is_asked() noexcept { return is_asked_ != 0; }

 private:
  static constexpr std::array<int, 2> kSignals = {SIGTERM, SIGINT};

  static void note(int signal) {
    is_asked_ = 1;
    if (signal == SIGINT) std::signal(signal, SIG_DFL);
  }

  static inline volatile std::sig_atomic_t is_asked_ = 0;
  std::array<void (*)(int), 2> before_{};
};

}  // namespace spectx::support
