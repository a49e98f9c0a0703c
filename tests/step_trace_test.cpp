// SPDX-License-Identifier: Apache-2.0
// The device's spans of a step: where they lie on the host's clock, and which there are.
#include <chrono>
#include <cmath>

#include "catch.hpp"
#include "spectx/cpu/backend.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"
#include "support/spans.hpp"

using namespace spectx;
using namespace spectx::test;
using detail::StepTrace;

namespace {

/// Stamps of a step of one group: it is waited for if its transfer ends after `wait`, its lead
/// layers if `lead_end` is after 10.
std::array<std::uint64_t, 12> stamps(std::uint64_t begin, std::uint64_t transfer_end,
                                     std::uint64_t lead_end = 9) {
  return {begin,      begin + 1,  begin + 90, begin + 91,           begin + 97, begin + lead_end,
          begin + 10, begin + 15, begin + 2,  begin + transfer_end, begin + 30, begin + 60};
}

}  // namespace

TEST_CASE("spans lie between the launch and the moment at which they were seen") {
  Spans spans;
  const TraceSink sink = spans.sink();
  StepTrace trace(sink);
  const std::int64_t launch = StepTrace::now_ns() - 1'000'000;
  const std::uint64_t begin = 5;  // the device's clock began yesterday
  trace.write(stamps(begin, 50).data(), 0, 1, false, launch);
  REQUIRE(spans.all.size() == 4);
  REQUIRE(spans.all[0].begin_ns == launch);
  REQUIRE(spans.all[0].end_ns == launch + 90);
  REQUIRE(spans.all[1].group == 0);
  REQUIRE(spans.all[1].begin_ns == launch + 2);
  REQUIRE(spans.all[1].end_ns == launch + 50);
  REQUIRE(spans.named("wait", TraceLane::compute).size() == 1);
  REQUIRE(spans.all[2].end_ns - spans.all[2].begin_ns == 30);
  const auto written = spans.named("write_through", TraceLane::copy);
  REQUIRE(written.size() == 1);
  REQUIRE(written[0]->begin_ns == launch + 91);
  REQUIRE(written[0]->end_ns == launch + 97);

  spans.all.clear();
  trace.write(stamps(begin + 1000, 20).data(), 0, 1, false, launch);  // the same clock: 1 us later
  REQUIRE(spans.all.size() == 3);  // the rows were there: nothing was waited for
  REQUIRE(spans.all[0].begin_ns == launch + 1000);

  spans.all.clear();
  trace.write(stamps(begin + 2000, 20).data(), 0, 1, false, launch + 500'000);  // the clocks drift
  REQUIRE(spans.all[0].begin_ns == launch + 500'000);

  spans.all.clear();
  trace.write(stamps(begin + 2000, 50, 12).data(), 0, 1, true, launch + 500'000);
  const auto waits = spans.named("wait", TraceLane::compute);
  REQUIRE(waits.size() == 2);
  REQUIRE(waits[0]->group == 0);
  REQUIRE(waits[0]->end_ns - waits[0]->begin_ns == 5);
  REQUIRE(waits[1]->end_ns - waits[1]->begin_ns == 30);
}

TEST_CASE("what a step waited for is exposed, beside the least that it had to wait") {
  const auto at = stamps(1000, 50, 12);
  StepReport report;
  std::vector<GroupTimes> groups;
  detail::StepTimes{at.data(), 0, 1, true, false}.write(report, groups);
  REQUIRE(report.step_us == 90e-3);
  REQUIRE(report.transfer_us == 48e-3);
  REQUIRE(report.exposed_us == 5e-3 + 30e-3);
  REQUIRE(std::lround(1000 * report.floor_us) == 24);  // computed: 9, then 15 more
  REQUIRE(groups.size() == 1);
  REQUIRE(groups[0].exposed_us == report.exposed_us);

  const auto in_time = stamps(1000, 20);  // the first layers too
  report = {};
  detail::StepTimes{in_time.data(), 0, 1, true, false}.write(report, groups);
  REQUIRE(report.exposed_us == 0);
}

TEST_CASE("a step with offloaded groups sends its step and a transfer a group") {
  Spans spans;
  const auto backend = make_cpu_backend({.two_memories = true, .trace = spans.sink()});
  RowLoop loop(*backend, pool_shape(), pool_plan());
  const RequestId id = loop.open(100);
  loop.place(id, 1);
  loop.prefill(id, 60);
  static_cast<void>(loop.pipeline.report());
  REQUIRE(spans.named("write_through", TraceLane::copy).empty());  // a prompt's rows go as it runs
  spans.all.clear();
  const std::int64_t before = StepTrace::now_ns();
  loop.step({loop.item(id, 1)});
  const StepReport& report = loop.pipeline.report();
  REQUIRE(report.groups.size() == 2);
  REQUIRE(spans.named("step", TraceLane::compute).size() == 1);
  const auto gathers = spans.named("gather", TraceLane::copy);
  REQUIRE(gathers.size() == 2);
  REQUIRE(spans.named("write_through", TraceLane::copy).size() == 1);
  double transfer_us = 0;
  for (std::size_t g = 0; g < 2; ++g) {
    REQUIRE(gathers[g]->group == static_cast<index_t>(g) + 1);
    REQUIRE(report.groups[g].group == gathers[g]->group);
    REQUIRE(report.groups[g].transfer_us ==
            static_cast<double>(gathers[g]->end_ns - gathers[g]->begin_ns) * 1e-3);
    transfer_us += report.groups[g].transfer_us;
  }
  REQUIRE(report.transfer_us == transfer_us);
  REQUIRE(report.exposed_us == transfer_us);  // the CPU's streams run at the call
  REQUIRE(report.floor_us <= report.exposed_us);
  for (const DeviceSpan& span : spans.all) {
    REQUIRE(span.begin_ns >= before);
    REQUIRE(span.end_ns >= span.begin_ns);
    REQUIRE(span.end_ns <= StepTrace::now_ns());
  }
}

TEST_CASE("moves and warms send spans on lanes of their own") {
  Spans spans;
  const auto backend = make_cpu_backend({.two_memories = true, .trace = spans.sink()});
  RowLoop loop(*backend, pool_shape(), pool_plan());
  const RequestId id = loop.open(100);
  loop.prefill(id, 60);
  const std::int64_t before = StepTrace::now_ns();
  loop.place(id, 3);  // it is there already
  static_cast<void>(loop.pipeline.report());
  REQUIRE(spans.named("move", TraceLane::move).empty());
  loop.place(id, 1);
  loop.warm({loop.item(id, 1)});
  REQUIRE(spans.named("move", TraceLane::move).empty());
  static_cast<void>(loop.pipeline.report());
  static_cast<void>(loop.pipeline.report());
  REQUIRE(spans.named("move", TraceLane::move).size() == 1);
  REQUIRE(spans.named("warm", TraceLane::warm).size() == 1);
  spans.all.clear();
  // More than are kept while nobody asks: those that found no place are left out.
  for (int n = 0; n < 40; ++n) loop.warm({loop.item(id, 1)}, n);
  static_cast<void>(loop.pipeline.report());
  REQUIRE(spans.named("warm", TraceLane::warm).size() == 16);
  for (const DeviceSpan& span : spans.all) {
    REQUIRE((span.lane == TraceLane::compute || span.begin_ns >= before));
    REQUIRE(span.end_ns >= span.begin_ns);
    REQUIRE(span.end_ns <= StepTrace::now_ns());
  }
}
