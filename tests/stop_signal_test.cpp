// SPDX-License-Identifier: Apache-2.0
#include "support/stop_signal.hpp"

#include "catch.hpp"

namespace spectx::test {
namespace {

int num_others = 0;
void note_other(int) { ++num_others; }

}  // namespace

TEST_CASE("A program that is told to end goes on, and knows of it") {
  void (*const before)(int) = std::signal(SIGTERM, note_other);
  {
    const support::StopSignal stop;
    REQUIRE_FALSE(stop.is_asked());
    std::raise(SIGTERM);
    REQUIRE(stop.is_asked());
    std::raise(SIGTERM);  // as `timeout` does: once by itself and once for the group
  }
  REQUIRE(support::StopSignal::is_asked());
  REQUIRE(num_others == 0);
  std::raise(SIGTERM);
  REQUIRE(num_others == 1);  // who noted it before
  REQUIRE_FALSE(support::StopSignal().is_asked());
  std::signal(SIGTERM, before);
}

}  // namespace spectx::test
