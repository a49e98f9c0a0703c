// SPDX-License-Identifier: Apache-2.0
// Decode steps of a real model after a long prompt: full attention against budgets.
//   decode_bench --model=FILE.gguf --head=FILE.safetensors --text=FILE [Google Benchmark's flags]
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "llama/session.hpp"
#include "llama/tokenizer.hpp"
#include "llama/tokenizer_config.hpp"
#include "spectx/cpu/backend.hpp"
#include "support/trace_recorder.hpp"

namespace {

using namespace spectx;

constexpr index_t kSteps = 64;

/// The model, the head and the text; one session at a time.
class World {
 public:
  World(const std::string& model, const std::string& head, const std::string& text)
      : backend_(make_cpu_backend({.trace = recorder.sink()})),
        stream_(backend_->make_stream()),
        file_(model),
        config_(llama::llama_config(file_)),
        weights_(*backend_, file_, config_, DType::bf16, stream_),
        head_(io::load_head(*backend_, head, llama::model_shape(config_, DType::bf16),
                            weights_.all().embeddings, {.dtype = DType::bf16}, stream_)) {
    std::ifstream in(text, std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    tokens_ = llama::Tokenizer(llama::tokenizer_config(file_)).encode(content);
  }

  index_t text_tokens() const { return static_cast<index_t>(tokens_.size()); }

  /// A session whose next step has `context` cached rows before it.
  llama::Session& prefilled(index_t context, index_t budget) {
    if (context_ == context && budget_ == budget) {
      session_->rewind();
      return *session_;
    }
    session_.reset();
    session_ =
        std::make_unique<llama::Session>(*backend_, weights_, &head_,
                                         llama::SessionConfig{.selection = {.budget = budget},
                                                              .max_length = context + kSteps + 1,
                                                              .device_bytes = index_t{8} << 30});
    const auto start = std::chrono::steady_clock::now();
    const std::span prompt(tokens_.data(), static_cast<std::size_t>(context + 1));
    session_->prefill(prompt);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    prefill_rate_ = static_cast<double>(context) / seconds.count();
    std::fprintf(stderr, "prefill of %lld tokens: %.0f tokens/s\n", static_cast<long long>(context),
                 prefill_rate_);
    context_ = context;
    budget_ = budget;
    return *session_;
  }
  /// The token that follows n others.
  std::int32_t token(index_t n) const { return tokens_[static_cast<std::size_t>(n)]; }
  double prefill_rate() const { return prefill_rate_; }

  support::TraceRecorder recorder{0};

 private:
  std::unique_ptr<Backend> backend_;
  Stream stream_;
  io::Gguf file_;
  llama::LlamaConfig config_;
  llama::LlamaWeights weights_;
  io::LoadedHead head_;
  std::vector<std::int32_t> tokens_;
  std::unique_ptr<llama::Session> session_;
  index_t context_ = -1;
  index_t budget_ = -1;
  double prefill_rate_ = 0;
};

/// One iteration is one step. Full attention and the budget take turns on the same session, so that
/// their ratio is of one run.
void decode(benchmark::State& state, World& world, llama::Attention attention) {
  const index_t context = state.range(0);
  llama::Session& session = world.prefilled(context, state.range(1));
  const auto spans = [&](const char* name) {
    return static_cast<double>(world.recorder.total_ns(name)) * 1e-9;
  };
  const auto head_spans = [&] {
    return spans("RetrievalHead::select") + spans("RetrievalHead::observe");
  };
  session.step(world.token(context), attention);  // pages and caches are warm
  const double attend_before = spans("Session::attend");
  const double head_before = head_spans();
  index_t n = context + 1;
  double bytes = 0;
  double coverage = 0;
  for (auto _ : state) {
    session.step(world.token(n++), attention);
    bytes += static_cast<double>(session.figures().kv_bytes);
    coverage += session.figures().coverage;
  }
  const double steps = static_cast<double>(state.iterations());
  const double attend_seconds = spans("Session::attend") - attend_before;
  state.counters["tokens/s"] = benchmark::Counter(steps, benchmark::Counter::kIsRate);
  state.counters["attend_ms"] = attend_seconds / steps * 1e3;
  state.counters["attend_GB/s"] = bytes / attend_seconds * 1e-9;
  state.counters["head_ms"] = (head_spans() - head_before) / steps * 1e3;
  state.counters["kv_bytes"] = bytes / steps;
  state.counters["coverage"] = coverage / steps;
  state.counters["prefill_tokens/s"] = world.prefill_rate();
}

/// Takes `--name=value` out of the arguments; empty if it is not there.
std::string take_flag(int& argc, char** argv, const std::string& name) {
  const std::string prefix = "--" + name + "=";
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (!argument.starts_with(prefix)) continue;
    for (int j = i; j + 1 < argc; ++j) argv[j] = argv[j + 1];
    --argc;
    return argument.substr(prefix.size());
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string model = take_flag(argc, argv, "model");
  const std::string head = take_flag(argc, argv, "head");
  const std::string text = take_flag(argc, argv, "text");
  benchmark::Initialize(&argc, argv);
  if (model.empty() || head.empty() || text.empty() ||
      benchmark::ReportUnrecognizedArguments(argc, argv)) {
    std::fputs("usage: decode_bench --model=FILE --head=FILE --text=FILE [benchmark flags]\n",
               stderr);
    return 2;
  }
  World world(model, head, text);
  for (const index_t context : {2048, 4096, 8064}) {
    if (context + kSteps + 2 > world.text_tokens()) break;
    for (const index_t budget : {256, 512, 1024}) {
      for (const auto attention : {llama::Attention::full, llama::Attention::selected}) {
        const char* name = attention == llama::Attention::full ? "decode/full" : "decode/spectx";
        benchmark::RegisterBenchmark(name, decode, std::ref(world), attention)
            ->ArgNames({"context", "budget"})
            ->Args({context, budget})
            ->Iterations(kSteps - 1)
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "decode_bench: %s\n", error.what());
  return 1;
}
