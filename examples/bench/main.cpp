// SPDX-License-Identifier: Apache-2.0
// spectx-bench: decode steps of many requests, with spectx and with full attention.
#include <chrono>
#include <cstdio>
#include <optional>
#include <stdexcept>

#include "bench/kernel_trace.hpp"
#include "bench/measure.hpp"
#include "bench/model_shapes.hpp"
#include "bench/recycled_memory.hpp"
#include "bench/server.hpp"
#include "spectx/io/gguf.hpp"
#include "support/atomic_file.hpp"
#include "support/program.hpp"
#include "support/stop_signal.hpp"

namespace spectx::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The weights that a name stands for: of a seed, or a file's.
llama::LlamaWeights load(Backend& backend, const Options& o, StreamView stream) {
  if (!o.model.ends_with(".gguf")) {
    constexpr std::uint64_t kSeed = 1;
    return {backend, model_by_name(o.model), o.dtype, kSeed, stream};
  }
  const io::Gguf file(o.model);
  return {backend, file, llama::llama_config(file), o.dtype, stream};
}

/// Every combination of the lists but for the misses; hot buffers say nothing about a dense step.
std::vector<Case> cases_of(const Options& o, index_t context) {
  std::vector<Case> cases;
  for (const std::string& mode : o.modes) {
    Case c;
    c.is_dense = mode == "dense";
    c.context = context;
    c.selection = o.selection;
    if (c.is_dense) {
      cases.push_back(c);
      continue;
    }
    for (const std::string& dtype : o.host_dtypes) {
      for (const double buffer : o.hot_buffers) {
        for (const index_t blocks : o.copy_blocks) {
          Case next = c;
          next.copy_blocks = blocks;
          next.hot_buffer = buffer;
          next.miss_scale = o.miss_scales.front();
          if (dtype != "own") next.host_dtype = dtype == "fp8" ? DType::f8_e4m3 : DType::i8;
          cases.push_back(next);
        }
      }
    }
  }
  return cases;
}

std::string text_of(const Machine& m) {
  const std::string driver = m.driver.empty() ? "" : ", driver " + m.driver;
  return m.backend + " on " + m.device + driver + ", commit " + m.commit + ", " + m.model + " " +
         m.dtype + ", cap " + m.cap + "; " + m.context_rows + "; " + m.tokens + "\n";
}

constexpr int kCutOff = 3;  // exit code

/// What became of the cases.
struct Tally {
  index_t cases = 0, failed = 0;
  std::string error;        // of the first that failed
  bool is_cut_off = false;  // something that was asked for was not measured, or not to its end

  void add(const std::string& error_or_none) {
    ++cases;
    if (error_or_none.empty()) return;
    if (failed++ == 0) error = error_or_none;
  }
  /// Throws if a case failed.
  void check() const {
    if (failed == 0) return;
    throw std::runtime_error(std::to_string(failed) + " of " + std::to_string(cases) +
                             " cases failed: " + error);
  }
};

/// The program's files and table, written anew after every record.
class Output {
 public:
  Output(const Options& o, Machine machine, Tally& tally)
      : machine_(std::move(machine)), tally_(tally) {
    if (!o.json.empty()) json_.emplace(o.json);
    if (!o.csv.empty()) csv_.emplace(o.csv);
    std::printf("%s\n%s", text_of(machine_).c_str(), markdown_head().c_str());
  }
  void add(Record record) {
    std::fputs(markdown_row(record).c_str(), stdout);
    tally_.add(record.error);
    records_.push_back(std::move(record));
    if (json_) json_->replace([&](std::ostream& out) { write_json(machine_, records_, out); });
    if (csv_) csv_->replace([&](std::ostream& out) { write_csv(machine_, records_, out); });
    support::flush_output();
  }
  void finish() const { std::fputs(markdown_parts(records_).c_str(), stdout); }

 private:
  Machine machine_;
  Tally& tally_;
  std::vector<Record> records_;
  std::optional<support::AtomicFile> json_, csv_;
};

Machine machine_of(const Options& o, const support::ChosenBackend& chosen, index_t cap,
                   double copy_gb_s) {
  return {.backend = chosen.name,
          .device = chosen.device,
          .driver = chosen.driver,
          .commit = o.commit,
          .model = o.model,
          .dtype = dtype_name(o.dtype),
          .context_rows = o.prefills ? "context from a prefill" : "context filled with random rows",
          .tokens = std::string("the likeliest token goes on, on the device") +
                    (o.captures ? "; a step is a CUDA graph" : ""),
          .cap = std::to_string(cap),
          .copy_gb_s = copy_gb_s};
}

/// What comes to the pool in a case of --run or --arrivals.
std::vector<Visit> visits_for(const Options& o, index_t requests) {
  return o.arrivals.count > 0 ? visits_of(o.arrivals)
                              : same_visits(requests, o.arrivals.prompt.low, o.arrivals.output.low);
}

/// What the first case of a set would leave on the device.
index_t start_up_of(const Bench& bench) {
  const Options& o = bench.options;
  Case c = cases_of(o, o.arrivals.prompt.low).front();
  c.requests = std::stoll(o.requests.front());
  return start_up_bytes(bench, c, longest(visits_for(o, c.requests)));
}

void serve_all(const Bench& bench, const Machine& machine, Tally& tally) {
  const auto start = Clock::now();
  const Options& o = bench.options;
  std::vector<Timeline> all;
  std::optional<support::AtomicFile> json, csv, plot;
  if (!o.json.empty()) json.emplace(o.json);
  if (!o.csv.empty()) csv.emplace(o.csv);
  if (!o.plot.empty()) plot.emplace(o.plot);
  std::fputs(text_of(machine).c_str(), stdout);
  for (Case c : cases_of(o, o.arrivals.prompt.low)) {
    for (const std::string& requests : o.requests) {
      const bool is_over = o.seconds > 0 && seconds_since(start) > o.seconds;
      if (is_over || support::StopSignal::is_asked()) {
        tally.is_cut_off = true;
        return;
      }
      c.requests = std::stoll(requests);
      all.push_back(serve(bench, c, visits_for(o, c.requests),
                          {.starts_together = o.arrivals.count == 0,
                           .park_every = o.arrivals.park_every,
                           .sample_steps = o.sample_steps,
                           .seconds = o.seconds,
                           .skip_after = o.skip.low,
                           .skipped = o.skip.high}));
      tally.is_cut_off = tally.is_cut_off || all.back().is_cut_off;
      tally.add(all.back().is_cut_off ? std::string() : all.back().error);
      std::fputs(markdown(all.back()).c_str(), stdout);
      if (json) json->replace([&](std::ostream& out) { write_json(machine, all, out); });
      if (csv) csv->replace([&](std::ostream& out) { write_csv(all, out); });
      if (plot) plot->replace([&](std::ostream& out) { write_plot(all, out); });
      support::flush_output();
      std::fprintf(stderr, "%.1f s\n", seconds_since(start));
    }
  }
}

void measure_all(const Bench& bench, const Machine& machine, Tally& tally) {
  const auto start = Clock::now();
  const Options& o = bench.options;
  Output output(o, machine, tally);
  std::optional<support::AtomicFile> kernels_file;
  std::optional<KernelTrace> kernels;
  if (!o.kernels.empty()) {
    kernels_file.emplace(o.kernels);
    kernels.emplace();
  }
  for (const index_t context : o.contexts) {
    for (Case c : cases_of(o, context)) {
      for (const std::string& requests : o.requests) {
        if (o.seconds > 0 && seconds_since(start) > o.seconds) {
          tally.is_cut_off = true;
          return output.finish();
        }
        c.requests = std::max<index_t>(requests_of(bench, c, requests), 1);
        measure(bench, c, [&](Record record) { output.add(std::move(record)); });
        std::fprintf(stderr, "%.1f s\n", seconds_since(start));
      }
    }
  }
  output.finish();
  if (kernels) kernels_file->replace([&](std::ostream& out) { kernels->write(out); });
}

/// Throws FileError when a file that is to be written cannot be: the weights take long.
void check_outputs(const std::vector<Options>& sets) {
  for (const Options& o : sets) {
    for (const std::string& path : {o.json, o.csv, o.plot, o.kernels}) {
      if (!path.empty()) support::AtomicFile{path};
    }
  }
}

int run_command(int argc, const char* const* argv) {
  const auto start = Clock::now();
  const std::vector<Options> sets = read_options(argc, argv);
  const Options& first = sets.front();
  if (first.wants_help) {
    std::fputs(help_text().c_str(), stdout);
    return 0;
  }
  check_outputs(sets);
  const RecordedTrace trace(first.trace);
  constexpr index_t kMostSpans = index_t{1} << 18;
  std::optional<support::AtomicFile> spans_file;
  if (!first.spans.empty()) spans_file.emplace(first.spans);
  support::TraceRecorder spans(spans_file ? kMostSpans : 0);
  spans.keep_events(false);
  const bool has_cap =
      std::any_of(sets.begin(), sets.end(), [](const Options& o) { return o.device_bytes > 0; });
  const support::ChosenBackend chosen =
      support::make_backend({.wanted = first.backend,
                             .threads = first.threads,
                             .two_memories = has_cap,
                             .trace = spans_file ? spans.sink() : TraceSink{}});
  Backend& backend = *chosen.backend;
  const Stream stream = backend.make_stream();
  const index_t total = support::total_device_bytes(chosen);
  const bool has_driver = chosen.name == "cuda";
  const index_t outside = has_driver ? total - support::available_device_bytes(chosen) : 0;
  // More than any cache holds, and little beside the device.
  const index_t copied = std::min(total / 16, index_t{backend.runs_at_call() ? 128 : 2048} << 20);
  const double copy_gb_s = measure_copy_gb_s(backend, copied, stream);
  const llama::LlamaWeights weights = load(backend, first, stream);
  const io::LoadedHead head =
      random_head(backend, weights.config(), weights.all().embeddings, first.dtype, stream);
  index_t most_host_bytes = 0;
  for (const Options& o : sets) most_host_bytes = std::max(most_host_bytes, o.host_bytes);
  RecycledMemory host(backend.memories().host, most_host_bytes + (index_t{1} << 30));
  std::fprintf(stderr, "weights are there after %.1f s\n", seconds_since(start));
  index_t start_up = 0;
  const auto bench_of = [&](const Options& o) {
    const index_t cap = o.device_bytes > 0 ? std::min(o.device_bytes, total) : total;
    // What the modules of kernels will take, graphs, and the driver's tables of pages.
    const index_t later = (index_t{128} << 20) + cap / 160 + most_host_bytes / 448;
    return Bench{.options = o,
                 .chosen = chosen,
                 .weights = weights,
                 .head = head,
                 .trace = trace,
                 .spans = spans,
                 .memories = {backend.memories().device, host},
                 .cap = cap,
                 .context_bytes = outside,
                 .taken_outside = has_driver ? outside + later : 0,
                 .start_up_bytes = start_up};
  };
  const auto visited =
      std::find_if(sets.begin(), sets.end(), [](const Options& o) { return o.has_visits(); });
  if (visited != sets.end()) start_up = start_up_of(bench_of(*visited));
  Tally tally;
  for (const Options& o : sets) {
    if (support::StopSignal::is_asked()) {
      tally.is_cut_off = true;
      break;
    }
    const Bench bench = bench_of(o);
    const Machine machine = machine_of(o, chosen, bench.cap, copy_gb_s);
    o.has_visits() ? serve_all(bench, machine, tally) : measure_all(bench, machine, tally);
  }
  if (spans_file) spans_file->replace([&](std::ostream& out) { spans.write(out); });
  tally.check();
  return tally.is_cut_off ? kCutOff : 0;
}

}  // namespace
}  // namespace spectx::bench

int main(int argc, char** argv) {
  return spectx::support::run_program("spectx-bench",
                                      [&] { return spectx::bench::run_command(argc, argv); });
}
