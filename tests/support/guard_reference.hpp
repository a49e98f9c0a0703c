// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "reference.hpp"
#include "spectx/selection.hpp"

namespace spectx::test {

/// The guard of one request, from its definition: the smallest rung that covers enough, where a
/// rung below the one that was read last needs more.
class GuardReference {
 public:
  /// Whether an item of `length` tokens may end on `rung` with `outcome`, where the rungs cover
  /// `covered`; within its bounds a coverage is enough and is not. The rung is what was read last.
  bool is_right(const SelectionConfig& rule, index_t length, bool is_resident, GuardOutcome outcome,
                index_t rung, const std::vector<Bound>& covered) {
    const auto last = static_cast<index_t>(covered.size()) - 1;
    const auto slack = [&](index_t r, double sign) {
      const double least = static_cast<double>(rule.min_coverage);
      const double comfortable = 1 - (1 - static_cast<double>(rule.hysteresis)) * (1 - least);
      const Bound& c = covered[at(r)];
      return length <= rule.rung(r)
                 ? 1
                 : c.expected + sign * c.allowed - (r < rung_ ? comfortable : least);
    };
    bool is_right = rung >= 0 && rung <= last;
    for (index_t r = 0; is_right && r < rung; ++r) is_right = slack(r, -1) < 0;
    if (outcome == GuardOutcome::kept || outcome == GuardOutcome::raised) {
      is_right = is_right && slack(rung, 1) >= 0 && (outcome == GuardOutcome::kept) == (rung == 0);
    } else {
      const bool reads_all = is_resident && rule.may_read_all;
      is_right = is_right && rung == last && slack(rung, -1) < 0 &&
                 (outcome == GuardOutcome::full) == reads_all;
    }
    rung_ = rung;
    return is_right;
  }
  index_t rung() const { return rung_; }

 private:
  index_t rung_ = 0;
};

}  // namespace spectx::test
