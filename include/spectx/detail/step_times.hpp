// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "spectx/pool_layout.hpp"
#include "spectx/step_report.hpp"

namespace spectx::detail {

/// Turns a step's stamps into the times of its report.
struct StepTimes {
  const std::uint64_t* step;  // ns, StepStamps
  index_t first_group;        // that is offloaded for some item that selects
  index_t groups;
  bool has_lead;      // PoolLayout::lead_layers
  bool runs_at_call;  // Backend::runs_at_call

  void write(StepReport& report, std::vector<GroupTimes>& times) const {
    report.step_us = us(step[StepStamps::kBegin], step[StepStamps::kEnd]);
    // What is not computation: also the time that two stamps take, or a copy that ran at the call.
    double waited = 0;
    for (index_t g = first_group; runs_at_call && g < groups; ++g) waited += transfer_us(g);
    // Of rows that were there at `end`, after `transferred` us of transfers.
    const auto exposed_us = [&](std::uint64_t end, std::uint64_t wait, std::uint64_t wait_end,
                                double transferred) {
      const double computed = us(step[StepStamps::kTransfersBegin], wait) - waited;
      report.floor_us = std::max(report.floor_us, transferred - computed);
      waited += us(wait, wait_end);
      return end > wait ? us(wait, wait_end) : 0.0;
    };
    for (index_t g = first_group; g < groups; ++g) {
      const std::uint64_t* const s = step + StepStamps::of_group(g, 0);
      double exposed = 0;
      if (has_lead && g == 0) {
        const std::uint64_t end = step[StepStamps::kLeadEnd];
        exposed = exposed_us(end, step[StepStamps::kLeadWait], step[StepStamps::kLeadWaitEnd],
                             us(s[StepStamps::kTransfer], end));
      }
      report.transfer_us += transfer_us(g);
      exposed += exposed_us(s[StepStamps::kTransferEnd], s[StepStamps::kWait],
                            s[StepStamps::kWaitEnd], report.transfer_us);
      if (runs_at_call) exposed = transfer_us(g);
      report.exposed_us += exposed;
      times.push_back({.group = g, .transfer_us = transfer_us(g), .exposed_us = exposed});
    }
  }

 private:
  static double us(std::uint64_t from, std::uint64_t to) {
    return to > from ? static_cast<double>(to - from) * 1e-3 : 0.0;
  }
  double transfer_us(index_t group) const {
    const std::uint64_t* const s = step + StepStamps::of_group(group, 0);
    return us(s[StepStamps::kTransfer], s[StepStamps::kTransferEnd]);
  }
};

}  // namespace spectx::detail
