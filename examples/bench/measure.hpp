// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "bench/options.hpp"
#include "bench/trace.hpp"
#include "support/backend.hpp"

namespace spectx::bench {

/// A model with its weights on the device, and what all measurements share.
struct Bench {
  const Options& options;
  const support::ChosenBackend& chosen;
  const llama::LlamaWeights& weights;
  const io::LoadedHead& head;
  const RecordedTrace& trace;
  Memories memories;
  index_t cap = 0;            // of the device
  index_t taken_outside = 0;  // of it, by the context and modules
};

/// The number of requests that `asked` stands for; 0 if not even one fits.
index_t requests_of(const Bench& bench, const Case& c, const std::string& asked);

/// Runs one configuration. What stops it is in the record.
Record measure(const Bench& bench, const Case& c);

}  // namespace spectx::bench
