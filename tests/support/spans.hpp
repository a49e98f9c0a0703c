// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "spectx/trace.hpp"

namespace spectx::test {

/// The device's spans that a backend's trace was given.
struct Spans {
  TraceSink sink() {
    TraceSink s;
    s.context = this;
    s.device = [](void* context, const DeviceSpan& span) {
      static_cast<Spans*>(context)->all.push_back(span);
    };
    return s;
  }
  std::vector<const DeviceSpan*> named(const std::string& name, TraceLane lane) const {
    std::vector<const DeviceSpan*> found;
    for (const DeviceSpan& span : all) {
      if (span.name == "PrefetchPipeline::" + name && span.lane == lane) found.push_back(&span);
    }
    return found;
  }

  std::vector<DeviceSpan> all;
};

}  // namespace spectx::test
