// SPDX-License-Identifier: Apache-2.0
// spectx-eval: recall, loss and needles of a retrieval head on texts.
#include <algorithm>
#include <cstdio>
#include <future>
#include <memory>
#include <mutex>
#include <optional>

#include "eval/report.hpp"
#include "eval/texts.hpp"
#include "eval/worker.hpp"
#include "llama/tokenizer_config.hpp"
#include "support/atomic_file.hpp"
#include "support/program.hpp"
#include "support/progress.hpp"

namespace spectx::eval {
namespace {

/// Everything that lives as long as the program runs.
class Program {
 public:
  explicit Program(const Options& options);
  void run();

 private:
  void load();
  void evaluate(index_t length);
  void write_files();
  const Options& options() const { return report_.options; }

  Report report_;
  std::optional<support::AtomicFile> json_file_;
  std::optional<support::AtomicFile> csv_file_;
  std::optional<support::AtomicFile> plots_file_;
  io::Gguf file_;
  llama::LlamaConfig model_;
  llama::Tokenizer tokenizer_;
  std::vector<Text> texts_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

std::optional<support::AtomicFile> output(const std::string& path) {
  if (path.empty()) return std::nullopt;
  return support::AtomicFile(path);
}

Program::Program(const Options& options)
    : report_{.options = options,
              .backend = "",
              .device = "",
              .reduce = GroupReduce::max,
              .lengths = {}},
      json_file_(output(options.json)),
      csv_file_(output(options.csv)),
      plots_file_(output(options.plots)),
      file_(options.model),
      model_(llama::llama_config(file_)),
      tokenizer_(llama::tokenizer_config(file_)),
      texts_(read_texts(options.texts, tokenizer_)) {
  const index_t longest = options.lengths.back();
  if (longest > model_.context_length) {
    throw InvalidArgument("--lengths " + std::to_string(longest) + " is more than the model's " +
                          "context of " + std::to_string(model_.context_length));
  }
  std::size_t most = 0;
  for (const index_t length : options.lengths) {
    most = std::max(most, long_texts(texts_, length + 1, options.max_texts).size());
  }
  const std::size_t count = std::min(static_cast<std::size_t>(options.jobs), most);
  for (std::size_t i = 0; i < count; ++i) {
    workers_.push_back(std::make_unique<Worker>(report_.options, file_, model_, tokenizer_));
  }
  report_.backend = workers_.front()->chosen().name;
  report_.device = workers_.front()->chosen().device;
}

/// Calls function(0 .. count - 1), each on a thread of its own; throws what the first of them
/// threw.
template <class Function>
void in_parallel(std::size_t count, const Function& function) {
  std::vector<std::future<void>> runs;
  for (std::size_t i = 0; i < count; ++i) {
    runs.push_back(std::async(std::launch::async, [&function, i] { function(i); }));
  }
  for (const std::future<void>& run : runs) run.wait();
  for (std::future<void>& run : runs) run.get();
}

/// Of those texts that are measured, in their order.
LengthFigures sum_of(const std::vector<std::optional<LengthFigures>>& texts) {
  LengthFigures sum;
  for (const std::optional<LengthFigures>& text : texts) {
    if (text) sum.add(*text);
  }
  return sum;
}

void Program::load() {
  const index_t memory = support::available_device_bytes(workers_.front()->chosen()) /
                         static_cast<index_t>(workers_.size());
  in_parallel(workers_.size(), [&](std::size_t i) {
    const std::vector<std::string> notes = workers_[i]->load(memory);
    if (i > 0) return;
    for (const std::string& note : notes) {
      std::fprintf(stderr, "%s: %s\n", options().head.c_str(), note.c_str());
    }
  });
  report_.reduce = workers_.front()->reduce();
}

/// The files are written anew after every text: a run that is interrupted leaves what it has.
void Program::evaluate(index_t length) {
  const Options& o = options();
  const auto texts = long_texts(texts_, length + 1, o.max_texts);
  const auto rows = static_cast<index_t>(o.selectors.size() * o.budgets.size());
  support::Progress progress(std::to_string(length) + " tokens", "tokens",
                             static_cast<index_t>(texts.size()) *
                                 tokens_of_text(length, o.positions, rows, o.needles > 0));
  report_.lengths.emplace_back();
  std::mutex mutex;  // of all that follows, progress and report
  std::size_t next = 0;
  bool has_failed = false;
  index_t done = 0;
  std::vector<std::optional<LengthFigures>> figures(texts.size());
  const auto advance = [&](index_t tokens) {
    const std::lock_guard lock(mutex);
    progress.update(done += tokens);
  };
  const auto take = [&]() -> std::size_t {
    const std::lock_guard lock(mutex);
    return has_failed ? texts.size() : next++;
  };
  in_parallel(workers_.size(), [&](std::size_t w) {
    try {
      for (std::size_t i = take(); i < texts.size(); i = take()) {
        LengthFigures found = workers_[w]->measure(*texts[i], length, i + 1, advance);
        const std::lock_guard lock(mutex);
        figures[i] = std::move(found);
        report_.lengths.back() = sum_of(figures);
        write_files();
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      has_failed = true;
      throw;
    }
  });
}

void Program::write_files() {
  if (json_file_) json_file_->replace([&](std::ostream& out) { write_json(report_, out); });
  if (plots_file_) plots_file_->replace([&](std::ostream& out) { write_plots(report_, out); });
  if (csv_file_) csv_file_->replace([&](std::ostream& out) { write_csv(report_, out); });
}

void Program::run() {
  load();
  for (const index_t length : options().lengths) {
    evaluate(length);
    std::fputs(table(report_.lengths.back(), options()).c_str(), stdout);
    support::flush_output();
  }
}

int run_command(int argc, const char* const* argv) {
  const Options options = read_options(argc, argv);
  if (options.wants_help) {
    std::fputs(help_text().c_str(), stdout);
    return 0;
  }
  check_budgets(options);
  try {
    Program(options).run();
  } catch (const OutOfMemory& error) {
    const std::string jobs = options.jobs > 1 ? "--jobs, " : "";
    throw Error(std::string(error.what()) + ": lower " + jobs + "the longest of --lengths (now " +
                std::to_string(options.lengths.back()) + ") or the largest of --budgets");
  }
  return 0;
}

}  // namespace
}  // namespace spectx::eval

int main(int argc, char** argv) {
  return spectx::support::run_program("spectx-eval",
                                      [&] { return spectx::eval::run_command(argc, argv); });
}
