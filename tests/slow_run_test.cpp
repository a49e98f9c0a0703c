// SPDX-License-Identifier: Apache-2.0
#include "support/slow_run.hpp"

#include <cstdlib>
#include <set>

#include "catch.hpp"
#include "support/backends.hpp"

using namespace spectx::test;

namespace {

using Numbers = std::vector<int>;

/// As SPECTX_TEST_SLOW_RUN says while it lives.
struct SlowRun {
  explicit SlowRun(const char* value) { setenv(kName, value, 1); }
  ~SlowRun() { setenv(kName, before.c_str(), 1); }
  static constexpr const char* kName = "SPECTX_TEST_SLOW_RUN";
  std::string before = std::getenv(kName) == nullptr ? "" : std::getenv(kName);
};

}  // namespace

TEST_CASE("combinations are all of them, each once") {
  const SlowRun run("0");
  const auto all = combinations(Numbers{1, 2, 3}, std::vector{false, true}, Numbers{7, 8});
  const std::set<std::tuple<int, bool, int>> different(all.begin(), all.end());
  REQUIRE(all.size() == 12);
  REQUIRE(different.size() == 12);
}

TEST_CASE("combinations of a slow run: few, with every value of every list") {
  const SlowRun run("1");
  const Numbers seven = {1, 2, 3, 4, 5, 6, 7};
  const auto few = combinations(Numbers{1, 2, 3}, std::vector{false, true}, seven, Numbers{8, 9});
  REQUIRE(few.size() == 7);
  std::set<int> firsts, thirds, fourths;
  std::set<std::pair<bool, int>> pairs;
  for (const auto& [first, second, third, fourth] : few) {
    firsts.insert(first);
    thirds.insert(third);
    fourths.insert(fourth);
    pairs.insert({second, fourth});
  }
  REQUIRE(firsts.size() == 3);
  REQUIRE(thirds.size() == 7);
  REQUIRE(fourths.size() == 2);
  REQUIRE(pairs.size() == 4);  // lists of the same length do not walk in step
}
