// SPDX-License-Identifier: Apache-2.0
// spectx-generate: a model continues a prompt, with full attention or with spectx.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>

#include "generate/report.hpp"
#include "llama/tokenizer_config.hpp"
#include "spectx/host_memory.hpp"
#include "support/atomic_file.hpp"
#include "support/backend.hpp"
#include "support/head_notes.hpp"
#include "support/program.hpp"
#include "support/progress.hpp"
#include "support/trace_recorder.hpp"

namespace spectx::generate {
namespace {

constexpr index_t kChunkRows = 512;
constexpr index_t kMostTraceEvents = index_t{1} << 20;  // 32 MiB

index_t peak_memory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return index_t{usage.ru_maxrss} << 10;
}

std::string in_mib(index_t bytes) { return std::to_string((bytes >> 20) + 1) + " MiB"; }

void check_budget(const Options& o) {
  if (o.mode == Mode::full) return;
  const SelectionConfig& s = o.selection;
  if (s.max_budget > 0 && s.max_budget < s.budget) {
    throw InvalidArgument("--max-budget " + std::to_string(s.max_budget) +
                          " must be at least --budget " + std::to_string(s.budget));
  }
  if (s.budget > s.sinks + s.recent_window) return;
  throw InvalidArgument("--budget " + std::to_string(s.budget) + " must be larger than --sinks " +
                        std::to_string(s.sinks) + " and --window " +
                        std::to_string(s.recent_window) + " together");
}

/// Everything that lives as long as the program runs.
class Program {
 public:
  explicit Program(const Options& options);
  void run();

 private:
  void choose_backend();
  void load();
  void prefill();
  void run_full(bool keeps_logits);
  void run_selected();
  void write_files();
  RunConfig config(llama::Attention attention) const {
    return {attention, report_.options.sampling, report_.options.max_tokens, report_.options.stops};
  }
  /// The user's cap, or what the device had when the program began.
  index_t device_bytes() const {
    return options().device_bytes > 0 ? options().device_bytes : available_memory_;
  }
  const Options& options() const { return report_.options; }
  std::int32_t last_token() const { return report_.prompt.tokens.back(); }

  Report report_;
  index_t available_memory_ = 0;  // before anything is loaded
  std::optional<support::AtomicFile> json_file_;
  std::optional<support::AtomicFile> trace_file_;
  support::TraceRecorder recorder_;
  io::Gguf file_;
  llama::LlamaConfig model_;
  llama::Tokenizer tokenizer_;
  support::ChosenBackend chosen_;
  Backend* backend_ = nullptr;
  std::optional<llama::LlamaWeights> weights_;
  std::optional<io::LoadedHead> head_;
  std::optional<llama::Session> session_;
  std::optional<KeptLogits> kept_;
};

Program::Program(const Options& options)
    : report_{.options = options},
      json_file_(options.json.empty() ? std::nullopt
                                      : std::optional<support::AtomicFile>(options.json)),
      trace_file_(options.trace.empty() ? std::nullopt
                                        : std::optional<support::AtomicFile>(options.trace)),
      recorder_(options.trace.empty() ? 0 : kMostTraceEvents),
      file_(options.model),
      model_(llama::llama_config(file_)),
      tokenizer_(llama::tokenizer_config(file_)) {
  choose_backend();
}

void Program::choose_backend() {
  available_memory_ = support::available_host_bytes();
  chosen_ = support::make_backend({.wanted = options().backend,
                                   .threads = options().threads,
                                   .two_memories = options().has_two_memories,
                                   .trace = recorder_.sink()});
  backend_ = chosen_.backend.get();
  report_.backend = chosen_.name;
  report_.device = chosen_.device;
  report_.driver = chosen_.driver;
  report_.has_host_tier = !backend_->has_one_memory();
  if (chosen_.name == "cuda") {
    // Modules, scratch memory and what cuBLAS takes come later.
    constexpr index_t kKeptFree = index_t{1} << 30;
    available_memory_ = std::max<index_t>(support::available_device_bytes(chosen_) - kKeptFree, 0);
  }
  if (options().sets_host_bytes && !report_.has_host_tier) {
    throw support::UsageError("--host-memory needs --device-memory");
  }
  if (options().host_dtype && !report_.has_host_tier) {
    throw support::UsageError("--host-dtype needs --device-memory");
  }
  if (options().captures && chosen_.name != "cuda") {
    throw support::UsageError("--graph needs a CUDA device");
  }
  if (report_.has_host_tier && options().selection.recent_window < 2) {
    throw support::UsageError("a host tier needs a --window of at least 2");
  }
}

void Program::load() {
  const Stream stream = backend_->make_stream();
  const llama::DecoderConfig decoder{.max_step_rows = kChunkRows};
  report_.model_bytes =
      llama::LlamaWeights::bytes(file_, model_, options().dtype) +
      llama::LlamaDecoder::bytes(model_, decoder, backend_->compute_dtype(options().dtype));
  if (report_.model_bytes > device_bytes()) {
    throw InvalidArgument("not enough memory: the model takes " + in_mib(report_.model_bytes) +
                          " of " + in_mib(device_bytes()) +
                          (options().device_bytes > 0 ? ": raise --device-memory" : ""));
  }
  weights_.emplace(*backend_, file_, model_, options().dtype, stream);
  if (!options().head.empty()) {
    head_ = io::load_head(*backend_, options().head, llama::model_shape(model_, options().dtype),
                          weights_->all().embeddings,
                          {.dtype = options().dtype, .rope_theta = options().head_theta}, stream);
    report_.head_bytes = head_->storage.bytes();
    report_.head_notes = support::head_notes(*head_, options().model);
  }
  const index_t max_length =
      static_cast<index_t>(report_.prompt.tokens.size()) + options().max_tokens;
  const bool selects = options().mode != Mode::full;
  try {
    session_.emplace(
        *backend_, *weights_, selects ? &*head_ : nullptr,
        llama::SessionConfig{.selection = selects ? options().selection : SelectionConfig{},
                             .max_length = max_length,
                             .chunk_rows = kChunkRows,
                             .device_bytes = device_bytes(),
                             .host_bytes = std::min(options().host_bytes, host_memory_limit()),
                             .host_dtype = options().host_dtype,
                             .captures = options().captures});
  } catch (const OutOfMemory& error) {
    const bool is_host = error.tier() == Tier::host;
    const std::string flag = is_host ? "--host-memory" : "--device-memory";
    throw InvalidArgument(
        "not enough memory: " + std::to_string(max_length) + " tokens take " +
        in_mib(error.bytes_asked()) + " beside the model, " + in_mib(error.bytes_free()) +
        " are there: " + (options().device_bytes > 0 ? "raise " + flag + " or " : "") +
        "shorten the prompt");
  }
}

void Program::prefill() {
  const auto& tokens = report_.prompt.tokens;
  support::Progress progress("prefill", "tokens", static_cast<index_t>(tokens.size()));
  const auto start = std::chrono::steady_clock::now();
  session_->prefill(tokens, [&](index_t done) { progress.update(done); });
  report_.prefill_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void Program::run_full(bool keeps_logits) {
  OnLogits keep;
  if (keeps_logits) {
    kept_.emplace(options().max_tokens, model_.vocabulary);
    keep = [&](std::span<const float> logits) { kept_->push(logits); };
  }
  report_.full =
      generate::run(*session_, tokenizer_, last_token(), config(llama::Attention::full), keep);
}

void Program::run_selected() {
  report_.selected =
      generate::run(*session_, tokenizer_, last_token(), config(llama::Attention::selected));
}

void Program::run() {
  report_.prompt = tokenize(tokenizer_, read_prompt(options()), options(), model_.context_length);
  load();
  prefill();
  const bool compares = options().mode == Mode::compare;
  if (compares) std::fputs("--- full attention\n", stderr);
  if (options().mode != Mode::selected) run_full(compares);
  if (compares) {
    session_->rewind();
    std::fprintf(stderr, "--- spectx, budget %lld\n",
                 static_cast<long long>(options().selection.budget));
  }
  if (options().mode != Mode::full) run_selected();
  report_.memory = session_->memory();
  if (compares) {
    session_->rewind();
    support::Progress progress("comparing", "tokens", kept_->size());
    report_.comparison = compare(*session_, last_token(), *report_.full, *report_.selected, *kept_,
                                 [&](index_t done) { progress.update(done); });
  }
  report_.peak_bytes = peak_memory();
  std::fputs(summary(report_).c_str(), stderr);
  write_files();
}

void Program::write_files() {
  if (json_file_) json_file_->replace([&](std::ostream& out) { write_json(report_, out); });
  if (trace_file_) trace_file_->replace([&](std::ostream& out) { recorder_.write(out); });
}

int run_command(int argc, const char* const* argv) {
  const Options options = read_options(argc, argv);
  if (options.wants_help) {
    std::fputs(help_text().c_str(), stdout);
    return 0;
  }
  check_budget(options);
  Program(options).run();
  return 0;
}

}  // namespace
}  // namespace spectx::generate

int main(int argc, char** argv) {
  return spectx::support::run_program("spectx-generate",
                                      [&] { return spectx::generate::run_command(argc, argv); });
}
