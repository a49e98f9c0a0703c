// SPDX-License-Identifier: Apache-2.0
#include "bench/timeline.hpp"

#include <algorithm>

#include "bench/visits.hpp"
#include "catch.hpp"

namespace spectx::test {

using namespace bench;

TEST_CASE("A step is compared with the calm steps on its two sides") {
  std::vector<StepTime> steps(40, {10, 0});
  for (std::size_t n = 20; n < 40; ++n) steps[n].ms = 20;  // from here on steps take longer
  REQUIRE(disturbances(steps).size() == 1);
  steps[20].causes = kJoins;              // as long as those after it
  steps[30] = {30, kMoveEnds | kLeaves};  // half as long again
  steps[31] = {22, kMoveEnds};
  steps[5] = {11, 0};
  const std::vector<Disturbance> all = disturbances(steps);
  REQUIRE(all.size() == 5);  // nothing, any change, a move ends, a request joins, one leaves
  const auto of = [&](unsigned cause) {
    return *std::find_if(all.begin(), all.end(),
                         [&](const Disturbance& d) { return d.cause == cause; });
  };
  REQUIRE(of(0).steps == 37);
  REQUIRE(of(0).longer == 0);
  REQUIRE(of(0).worst == 1.1);
  REQUIRE(of(0).p99 == 1);
  REQUIRE(of(kChanges).steps == 3);
  REQUIRE(of(kChanges).longer == 1);
  REQUIRE(of(kChanges).median == 1.1);
  REQUIRE(of(kJoins).worst == 1);
  REQUIRE(of(kMoveEnds).steps == 2);
  REQUIRE(of(kMoveEnds).longer == 1);
  REQUIRE(of(kMoveEnds).worst == 1.5);
  REQUIRE(of(kMoveEnds).at == 30);
  REQUIRE(of(kLeaves).worst == 1.5);
}

TEST_CASE("A step's link and bytes are compared with those of the calm steps beside it") {
  std::vector<StepTime> steps(40, {10, 0, 1, {.bytes = 300'000'000, .transfer_us = 6000}});
  steps[3].link = {};  // its report has not arrived
  steps[12] = {16, 0, 1, {.bytes = 300'000'000, .transfer_us = 12000}};
  steps[20] = {14, kMoving, 1, {.bytes = 300'000'000, .transfer_us = 7200}};
  steps[21] = {11, kMoving, 1, {.bytes = 300'000'000, .transfer_us = 7000}};
  steps[22] = {13, kMoving, 1, {.bytes = 360'000'000, .transfer_us = 7200}};
  steps[23] = {13, kMoving};
  const std::vector<Neighbours> usual = neighbours(steps);
  REQUIRE(usual[12].ms == 10);
  REQUIRE(usual[12].rate == 50);
  REQUIRE(usual[0].bytes == 300e6);
  const std::vector<Disturbance> all = disturbances(steps);
  REQUIRE(all.size() == 3);  // nothing, any change, a move is under way
  REQUIRE(all[0].cause == 0);
  REQUIRE(all[0].longer == 1);
  REQUIRE(all[0].slow_link == 1);
  REQUIRE(all[0].longer_slow_link == 1);
  REQUIRE(all[0].longer_more_bytes == 0);
  REQUIRE(all[2].longer == 3);
  REQUIRE(all[2].slow_link == 1);  // 41.7 GB/s; 42.9 are as usual
  REQUIRE(all[2].longer_slow_link == 1);
  REQUIRE(all[2].longer_more_bytes == 1);
}

TEST_CASE("What was not counted is a share of what was") {
  MemoryFigures m{.cap = 3000, .start_up = 100, .planned = 1900, .own = 100, .driver_peak = 2120};
  REQUIRE(m.uncounted() == 0.01);
  m.driver_peak = 0;  // no driver
  REQUIRE(m.uncounted() == 0);
}

TEST_CASE("Arrivals depend on their seed and keep to their ranges") {
  const Arrivals arrivals{
      .count = 300, .prompt = {1000, 16000}, .output = {50, 50}, .mean_gap = 20, .seed = 3};
  const std::vector<Visit> visits = visits_of(arrivals);
  REQUIRE(visits.size() == 300);
  REQUIRE(visits.front().arrives == 0);
  const auto is_before = [](const Visit& a, const Visit& b) { return a.arrives < b.arrives; };
  REQUIRE(std::is_sorted(visits.begin(), visits.end(), is_before));
  REQUIRE(visits.back().arrives > 250 * 20);
  REQUIRE(visits.back().arrives < 350 * 20);
  index_t below = 0;  // the middle of the logarithms
  for (const Visit& visit : visits) {
    REQUIRE(visit.prompt >= 1000);
    REQUIRE(visit.prompt <= 16000);
    REQUIRE(visit.output == 50);
    below += visit.prompt < 4000 ? 1 : 0;
  }
  REQUIRE(below > 110);
  REQUIRE(below < 190);
  REQUIRE(longest(visits) > 10000);
  REQUIRE(visits_of(arrivals).back().prompt == visits.back().prompt);
  Arrivals others = arrivals;
  others.seed = 4;
  REQUIRE(visits_of(others).back().arrives != visits.back().arrives);
}

}  // namespace spectx::test
