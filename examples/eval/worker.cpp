// SPDX-License-Identifier: Apache-2.0
#include "eval/worker.hpp"

#include <algorithm>

#include "support/head_notes.hpp"

namespace spectx::eval {

Worker::Worker(const Options& options, const io::Gguf& file, const llama::LlamaConfig& model,
               const llama::Tokenizer& tokenizer)
    : options_(options),
      file_(file),
      model_(model),
      tokenizer_(tokenizer),
      chosen_(support::make_backend({.wanted = options.backend, .threads = options.threads})) {}

std::vector<std::string> Worker::load(index_t memory) {
  memory_ = memory;
  Backend& backend = *chosen_.backend;
  const Stream stream = backend.make_stream();
  weights_.emplace(backend, file_, model_, options_.dtype, stream);
  head_ = io::load_head(backend, options_.head, llama::model_shape(model_, options_.dtype),
                        weights_->all().embeddings,
                        {.dtype = options_.dtype, .rope_theta = options_.head_theta}, stream);
  backend.synchronize(stream);
  return support::head_notes(*head_, options_.model);
}

index_t Worker::largest_budget(index_t length) const {
  index_t budget = options_.sinks + options_.window + 1;
  for (const index_t b : options_.budgets) {
    if (b > first_position(options_, length)) continue;
    budget = std::max(budget, most_rows(options_, b, length));
  }
  return budget;
}

void Worker::prepare(index_t length) {
  if (length == length_) return;
  const Options& o = options_;
  evaluation_.reset();
  runner_.reset();
  runner_ = std::make_unique<Runner>(
      *chosen_.backend, *weights_, *head_,
      RunnerConfig{.selection = {.budget = largest_budget(length),
                                 .sinks = o.sinks,
                                 .recent_window = o.window},
                   .head = {.reduce = o.reduce, .level = o.level, .head_of_kv_head = {}},
                   .max_length = length,
                   .device_bytes = memory_});
  EvaluationConfig config;
  config.measurement.selectors = o.selectors;
  config.measurement.budgets = o.budgets;
  config.measurement.length = length;
  config.measurement.rule = {.budget = 0,
                             .sinks = o.sinks,
                             .recent_window = o.window,
                             .max_budget = o.max_budget,
                             .min_coverage = o.min_coverage,
                             .hysteresis = o.hysteresis,
                             .may_read_all = !o.is_capped};
  config.measurement.seed = o.seed;
  config.positions = o.positions;
  config.needles = o.needles;
  config.needle_lead = o.needle_lead;
  config.buffers = o.buffers;
  evaluation_ = std::make_unique<Evaluation>(*runner_, runner_->pool().shape(), config);
  length_ = length;
}

LengthFigures Worker::measure(const Text& text, index_t length, std::uint64_t number,
                              const Runner::Progress& progress) {
  prepare(length);
  const auto tokens = std::span(text.tokens).first(static_cast<std::size_t>(length + 1));
  constexpr std::uint64_t kSeedStride = 1'000'003;
  return evaluation_->measure(text.name, tokens, tokenizer_, options_.seed * kSeedStride + number,
                              progress);
}

}  // namespace spectx::eval
