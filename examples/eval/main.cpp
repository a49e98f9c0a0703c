// SPDX-License-Identifier: Apache-2.0
// spectx-eval: recall, loss and needles of a retrieval head on texts.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "eval/evaluation.hpp"
#include "eval/report.hpp"
#include "eval/texts.hpp"
#include "llama/tokenizer_config.hpp"
#include "support/args.hpp"
#include "support/atomic_file.hpp"
#include "support/backend.hpp"
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
  std::unique_ptr<Runner> make_runner(index_t length);
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
  support::ChosenBackend chosen_;
  std::optional<llama::LlamaWeights> weights_;
  std::optional<io::LoadedHead> head_;
};

std::optional<support::AtomicFile> output(const std::string& path) {
  if (path.empty()) return std::nullopt;
  return support::AtomicFile(path);
}

Program::Program(const Options& options)
    : report_{.options = options, .backend = "", .device = "", .lengths = {}},
      json_file_(output(options.json)),
      csv_file_(output(options.csv)),
      plots_file_(output(options.plots)),
      file_(options.model),
      model_(llama::llama_config(file_)),
      tokenizer_(llama::tokenizer_config(file_)),
      texts_(read_texts(options.texts, tokenizer_)),
      chosen_(support::make_backend({.wanted = options.backend, .threads = options.threads})) {
  report_.backend = chosen_.name;
  report_.device = chosen_.device;
  const index_t longest = options.lengths.back();
  if (longest > model_.context_length) {
    throw InvalidArgument("--lengths " + std::to_string(longest) + " is more than the model's " +
                          "context of " + std::to_string(model_.context_length));
  }
  for (const index_t length : options.lengths) long_texts(texts_, length + 1, options.max_texts);
}

void Program::load() {
  Backend& backend = *chosen_.backend;
  const Stream stream = backend.make_stream();
  weights_.emplace(backend, file_, model_, options().dtype, stream);
  head_ = io::load_head(backend, options().head, llama::model_shape(model_, options().dtype),
                        weights_->all().embeddings,
                        {.dtype = options().dtype, .rope_theta = options().head_theta}, stream);
  for (const std::string& note : head_->notes) {
    std::fprintf(stderr, "%s: %s\n", options().head.c_str(), note.c_str());
  }
}

std::unique_ptr<Runner> Program::make_runner(index_t length) {
  const Options& o = options();
  index_t budget = o.sinks + o.window + 1;
  for (const index_t b : o.budgets) {
    if (b > first_position(o, length)) continue;
    budget = std::max(budget, most_rows(o, b, length));
  }
  // The planner counts the model's weights, which are there already, against the memory.
  const index_t memory = support::available_device_bytes(chosen_) + weights_->bytes();
  return std::make_unique<Runner>(
      *chosen_.backend, *weights_, *head_,
      RunnerConfig{.selection = {.budget = budget, .sinks = o.sinks, .recent_window = o.window},
                   .head = {.reduce = o.reduce, .level = o.level, .head_of_kv_head = {}},
                   .max_length = length,
                   .device_bytes = memory});
}

/// The files are written anew after every text: a run that is interrupted leaves what it has.
void Program::evaluate(index_t length) {
  const Options& o = options();
  const auto runner = make_runner(length);
  Evaluation evaluation(
      *runner, runner->pool().shape(),
      {.measurement = {.selectors = o.selectors,
                       .budgets = o.budgets,
                       .length = length,
                       .rule = {.budget = 0, .sinks = o.sinks, .recent_window = o.window},
                       .max_budget = o.max_budget,
                       .min_coverage = o.min_coverage,
                       .seed = o.seed},
       .positions = o.positions,
       .needles = o.needles,
       .buffers = o.buffers});
  const auto texts = long_texts(texts_, length + 1, o.max_texts);
  support::Progress progress(std::to_string(length) + " tokens", "tokens",
                             static_cast<index_t>(texts.size()) * evaluation.tokens_of_text());
  report_.lengths.emplace_back();
  index_t done = 0;
  const auto advance = [&](index_t tokens) { progress.update(done += tokens); };
  for (const Text* text : texts) {
    const auto tokens = std::span(text->tokens).first(static_cast<std::size_t>(length + 1));
    evaluation.add_text(text->name, tokens, advance);
    if (o.needles > 0) evaluation.add_needles(tokens, tokenizer_, advance);
    report_.lengths.back() = evaluation.figures();
    write_files();
  }
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
    if (std::fflush(stdout) != 0) throw FileError("standard output cannot be written");
  }
}

int run_command(int argc, const char* const* argv) {
  const Options options = read_options(argc, argv);
  if (options.wants_help) {
    std::fputs(help_text().c_str(), stdout);
    return 0;
  }
  check_budgets(options);
  Program(options).run();
  return 0;
}

}  // namespace
}  // namespace spectx::eval

int main(int argc, char** argv) {
  return spectx::support::run_program("spectx-eval",
                                      [&] { return spectx::eval::run_command(argc, argv); });
}
