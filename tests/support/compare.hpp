// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

namespace spectx::test {

/// What a value must be: `expected`, give or take `allowed`.
struct Bound {
  double expected;
  double allowed;
};

inline constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

/// Empty if every value is within its bound (NaN where NaN is expected), else the worst one.
inline std::string outside(const std::vector<float>& values, const std::vector<Bound>& bounds) {
  if (values.size() != bounds.size()) return "sizes differ";
  double worst = 1;
  std::ostringstream report;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double value = static_cast<double>(values[i]);
    if (value == bounds[i].expected) continue;
    if (std::isnan(bounds[i].expected) && std::isnan(value)) continue;
    const double error = std::abs(value - bounds[i].expected);
    const double ratio =
        bounds[i].allowed > 0 ? error / bounds[i].allowed : std::numeric_limits<double>::infinity();
    if (ratio <= worst) continue;  // false for NaN
    worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
    report.str("");
    report << "element " << i << ": " << value << ", expected " << bounds[i].expected << " +- "
           << bounds[i].allowed;
  }
  return report.str();
}

}  // namespace spectx::test
