// SPDX-License-Identifier: Apache-2.0
#include "eval/predictions.hpp"

#include <cmath>

#include "catch.hpp"

using spectx::eval::Predictions;

namespace {

bool are_near(double a, double b) { return std::abs(a - b) < 1e-6; }

}  // namespace

TEST_CASE("A prediction's loss, its likeliest token and the lead of the next one") {
  Predictions full(3);
  const std::vector<float> clear{1, 3, 2.5F};
  const std::vector<float> tied{2, 0, 2};
  full.add(clear);
  full.add(tied);
  REQUIRE(full.likeliest(0) == 1);
  REQUIRE(full.lead(0, 1) == 0.5);
  REQUIRE(full.lead(0, 0) == -2);
  REQUIRE(full.lead(0, 2) == -0.5);
  REQUIRE(full.lead(1, 0) == 0);
  REQUIRE(full.lead(1, 2) == 0);
  REQUIRE(are_near(full.loss(0, 1), std::log(std::exp(-2.0) + 1 + std::exp(-0.5))));
}

TEST_CASE("Another prediction is compared with full attention's") {
  Predictions full(2);
  const std::vector<float> even{0, 0};
  const std::vector<float> other{0, 1};
  full.add(even);
  const auto same = full.compare(0, even, 1);
  REQUIRE(same.kl == 0);
  REQUIRE(same.agrees);
  const auto found = full.compare(0, other, 1);
  REQUIRE(are_near(found.loss, std::log(1 + std::exp(-1.0))));
  REQUIRE(are_near(found.kl, std::log((1 + std::exp(1.0)) / 2) - 0.5));
  REQUIRE(found.is_right);
  REQUIRE_FALSE(found.agrees);
}
