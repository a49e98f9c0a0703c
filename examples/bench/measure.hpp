// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>

#include "bench/options.hpp"
#include "bench/replay.hpp"
#include "support/backend.hpp"
#include "support/trace_recorder.hpp"

namespace spectx::bench {

/// A model with its weights on the device, and what all measurements share.
struct Bench {
  const Options& options;
  const support::ChosenBackend& chosen;
  const llama::LlamaWeights& weights;
  const io::LoadedHead& head;
  const RecordedTrace& trace;
  support::TraceRecorder& spans;
  Memories memories;
  index_t cap = 0;             // of the device
  index_t context_bytes = 0;   // of it, that the driver took before all else
  index_t taken_outside = 0;   // of it, by the context, and by modules and page tables to come
  index_t start_up_bytes = 0;  // of it, of the context and the modules: before the first set
};

/// Tokens of a request at the end of a case: its context, and the steps with each miss rate.
index_t length_of(const Bench& bench, const Case& c);
/// The step of a case by bytes and measured rates; requests 0 if it does not fit.
StepPrediction predict(const Bench& bench, const Case& c);
/// What an engine for requests of up to `max_length` tokens is built with.
EngineConfig engine_config(const Bench& bench, const Case& c, index_t max_length);
/// Of the device, by the benchmark itself.
index_t own_bytes(const Bench& bench, const Case& c, index_t max_length);
/// The recorded selections for requests of up to `length` tokens; none where the head's own count.
std::optional<ReplayShape> replay_shape(const Bench& bench, const Case& c, index_t length);
/// The same with so many random rows that `pool` misses c.miss_scale times the recorded share.
std::optional<ReplayShape> scaled_replay_shape(const Bench& bench, const Case& c, index_t length,
                                               const KVPool& pool);

/// The number of requests that `asked` stands for; 0 if not even one fits.
index_t requests_of(const Bench& bench, const Case& c, const std::string& asked);

/// Runs one configuration with each of the miss rates: one record each. What stops it is in the
/// last one.
void measure(const Bench& bench, Case c, const std::function<void(Record)>& done);

}  // namespace spectx::bench
