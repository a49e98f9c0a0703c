// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>

namespace spectx::support {

/// While it lives, SIGTERM and a first SIGINT ask to end instead of ending the program; `timeout`
/// sends SIGTERM, twice at times. One at a time.
class StopSignal {
 public:
  StopSignal() noexcept {
    is_asked_ = 0;
    for (const int signal : {SIGTERM, SIGINT}) std::signal(signal, note);
  }
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  ~StopSignal() {
    for (const int signal : {SIGTERM, SIGINT}) std::signal(signal, SIG_DFL);
  }
  static bool is_asked() noexcept { return is_asked_ != 0; }

 private:
  static void note(int signal) {
    is_asked_ = 1;
    if (signal == SIGINT) std::signal(signal, SIG_DFL);
  }
  static inline volatile std::sig_atomic_t is_asked_ = 0;
};

}  // namespace spectx::support
