// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "eval/evaluation.hpp"
#include "eval/options.hpp"
#include "eval/texts.hpp"
#include "llama/tokenizer.hpp"
#include "llama/weights.hpp"
#include "spectx/io/gguf.hpp"
#include "support/backend.hpp"

namespace spectx::eval {

/// Measures one text at a time on a backend of its own, with a copy of the model of its own; each
/// thread of the program has one. Calls block. Not thread-safe.
class Worker {
 public:
  /// `options`, `file` and `tokenizer` must outlive it. Throws UsageError for a backend that is not
  /// there.
  Worker(const Options& options, const io::Gguf& file, const llama::LlamaConfig& model,
         const llama::Tokenizer& tokenizer);

  const support::ChosenBackend& chosen() const noexcept { return chosen_; }
  /// How query heads combine: as asked, else as the head's file says. After load().
  GroupReduce reduce() const { return options_.reduce.value_or(head_->weights.reduce); }
  /// Brings model and head to the device; `memory` is what it may use of it, in bytes. Returns what
  /// there is to say of the head's file.
  std::vector<std::string> load(index_t memory);
  /// @param text    of more than `length` tokens
  /// @param number  of the text, from 1: its needles' numbers follow from it and the seed
  LengthFigures measure(const Text& text, index_t length, std::uint64_t number,
                        const Runner::Progress& progress);

 private:
  void prepare(index_t length);
  index_t largest_budget(index_t length) const;

  const Options& options_;
  const io::Gguf& file_;
  const llama::LlamaConfig& model_;
  const llama::Tokenizer& tokenizer_;
  index_t memory_ = 0;
  support::ChosenBackend chosen_;
  std::optional<llama::LlamaWeights> weights_;
  std::optional<io::LoadedHead> head_;
  index_t length_ = 0;  // that the following are for
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<Evaluation> evaluation_;
};

}  // namespace spectx::eval
