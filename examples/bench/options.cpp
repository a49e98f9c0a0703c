// SPDX-License-Identifier: Apache-2.0
#include "bench/options.hpp"

#include <array>

#include "bench/model_shapes.hpp"
#include "support/args.hpp"
#include "support/atomic_file.hpp"

namespace spectx::bench {
namespace {

using support::Args;
using support::Flag;
using support::UsageError;

constexpr index_t kMostTokens = index_t{1} << 24;
constexpr index_t kMostRequests = 99'999;

constexpr std::array<Flag, 45> kFlags = {{
    {"--model", "NAME", "a shape with random weights, a config.json or a .gguf file"},
    {"--context", "N,N..", "tokens of every request before the first step (default 4096)"},
    {"--run", "IN,OUT", "requests have IN tokens, then all grow together by OUT"},
    {"--skip", "N,M",
     "of --run: after N steps fill in M tokens a request, as the context is filled"},
    {"--arrivals", "N", "N requests of mixed lengths arrive, are admitted or wait, grow and leave"},
    {"--prompt-tokens", "A,B", "of those: from A to B (default 1024,16384)"},
    {"--output-tokens", "A,B", "likewise (default 256,2048)"},
    {"--arrival-gap", "N", "steps between two of them, on average (default 40)"},
    {"--park-every", "N", "steps; then one is parked for half as many (default: none is)"},
    {"--seed", "N", "of their lengths (default 1)"},
    {"--sample", "N", "steps between two samples of --run and --arrivals (default 64)"},
    {"--requests", "N,N..", "in a batch; max: as many as fit; best: as the planner predicts"},
    {"--mode", "LIST", "spectx, dense (full attention, the same decoder); default: both"},
    {"--budget", "N", "rows that each KV head reads in a step (default 2048)"},
    {"--sinks", "N", "first tokens that are always among them (default 4)"},
    {"--window", "N", "last tokens that are always among them (default 64)"},
    {"--hot-buffer", "X,X..", "device slots as a multiple of the budget (default 2)"},
    {"--misses", "X,X..", "times the recorded trace's misses, from 1; 0: what the head selects"},
    {"--host-dtype", "LIST", "rows of the host tier: own (default, no loss), fp8, int8"},
    {"--trace", "FILE", "recorded selections (default data/traces/selection-smollm2-b512.bin)"},
    {"--device-memory", "BYTES", "cap of the device, everything included (default: all of it)"},
    {"--host-memory", "BYTES", "cap of the host tier (default 16G)"},
    {"--backend", "NAME", "cpu, cuda, or auto (the default): cuda where a device is there"},
    {"--threads", "N", "of the CPU; default: one a core"},
    {"--dtype", "TYPE", "of weights and rows: bf16 (default), f16 or f32"},
    {"--prefill", "", "make the context by a prefill; without it its rows are random values"},
    {"--graph", "", "run the steps as CUDA graphs"},
    {"--placement", "NAME", "of layers: planned (default), or all on the host"},
    {"--chunk", "N", "tokens of a prompt's step (default 2048)"},
    {"--warm-up", "N", "steps before those that count (default 40)"},
    {"--steps", "N", "of a repeat (default 24)"},
    {"--repeats", "N", "default 3"},
    {"--profile", "N", "steps with stamps between their parts (default 4)"},
    {"--copy-blocks", "N,N..", "grid of the gather of misses (default 0: the library's choice)"},
    {"--seconds", "S", "begin no case later than that; cut off a run that takes longer"},
    {"--commit", "TEXT", "that is measured, for the record"},
    {"--json", "FILE", "write every figure there"},
    {"--csv", "FILE", "write the figures of each configuration there, or every sample"},
    {"--plot", "FILE", "write an SVG of the samples there"},
    {"--spans", "FILE", "write a trace of the steps that count there, for ui.perfetto.dev"},
    {"--kernels", "FILE",
     "with --graph: write the times of the kernels of every step there (CUPTI builds alone)"},
    {"--quick", "", "8 steps after 4, once"},
    {"--next", "",
     "more cases, in the same memory: the flags so far but for the files, and what follows"},
    {"--help", "", "this text"},
    {"-h", "", ""},
}};

std::vector<std::string> words(const Args& args, const char* flag, const char* otherwise) {
  std::vector<std::string> all = support::split(args.text(flag, otherwise));
  std::erase(all, "");
  if (all.empty()) throw UsageError(std::string(flag) + " has no value");
  return all;
}

void read_lists(const Args& args, Options& o) {
  o.contexts = args.numbers<index_t>("--context", "4096", 1, kMostTokens);
  o.hot_buffers = args.numbers<double>("--hot-buffer", "2", 1, 1024);
  o.copy_blocks = args.numbers<index_t>("--copy-blocks", "0", 0, 4096);
  o.miss_scales = args.numbers<double>("--misses", "1", 0, 1000);
  for (const double scale : o.miss_scales) {
    if (scale > 0 && scale < 1) throw UsageError("--misses must be 0 or from 1 to 1000");
  }
  o.requests = words(args, "--requests", "1");
  for (const std::string& r : o.requests) {
    const bool is_number = r.find_first_not_of("0123456789") == std::string::npos;
    const bool is_in_range = is_number && r.size() < 6 && std::stoll(r) > 0;
    if (r != "max" && r != "best" && !is_in_range) {
      throw UsageError("--requests: \"" + r + "\" is no number of requests, max or best");
    }
  }
  o.host_dtypes = words(args, "--host-dtype", "own");
  for (const std::string& dtype : o.host_dtypes) {
    if (dtype != "own" && dtype != "fp8" && dtype != "int8") {
      throw UsageError("--host-dtype: \"" + dtype + "\" is none of own, fp8 and int8");
    }
  }
  o.modes = words(args, "--mode", "spectx,dense");
  for (const std::string& mode : o.modes) {
    if (mode != "spectx" && mode != "dense") {
      throw UsageError("--mode: \"" + mode + "\" is neither spectx nor dense");
    }
  }
}

Range range(const Args& args, const char* flag, const char* otherwise) {
  const std::vector<index_t> ends = args.numbers<index_t>(flag, otherwise, 1, kMostTokens);
  if (ends.size() != 2) {
    throw UsageError(std::string(flag) + " must be two numbers of tokens");
  }
  return {ends[0], ends[1]};
}

void read_visits(const Args& args, Options& o) {
  o.is_run = args.has("--run");
  o.arrivals.count = args.count("--arrivals", 0, 1, 1 << 16);
  o.sample_steps = args.count("--sample", o.sample_steps, 1, 1 << 16);
  if (!o.has_visits()) return;
  if (o.is_run && o.arrivals.count > 0) throw UsageError("--run and --arrivals exclude each other");
  args.numbers<index_t>("--requests", "1", 1, kMostRequests);
  if (o.is_run) {
    const Range both = range(args, "--run", "");
    o.arrivals.prompt = {both.low, both.low};
    o.arrivals.output = {both.high, both.high};
    if (args.has("--skip")) o.skip = range(args, "--skip", "");
    return;
  }
  o.arrivals.prompt = range(args, "--prompt-tokens", "1024,16384");
  o.arrivals.output = range(args, "--output-tokens", "256,2048");
  if (o.arrivals.prompt.low > o.arrivals.prompt.high ||
      o.arrivals.output.low > o.arrivals.output.high) {
    throw UsageError("--prompt-tokens and --output-tokens are from less to more");
  }
  o.arrivals.mean_gap = args.count("--arrival-gap", o.arrivals.mean_gap, 0, 1 << 20);
  o.arrivals.park_every = args.count("--park-every", 0, 2, 1 << 20);
  o.arrivals.seed = static_cast<std::uint64_t>(args.count("--seed", 1));
}

using Words = std::vector<const char*>;

std::string_view name_of(const char* word) {
  const std::string_view text = word;
  return text.substr(0, text.find('='));
}

/// The words of a set of cases: those of the first one whose flags are not given anew.
Words words_of(const Words& first, const Words& own) {
  const auto is_given = [&](std::string_view name) {
    return std::any_of(own.begin(), own.end(), [&](auto w) { return name_of(w) == name; });
  };
  Words all;
  for (std::size_t i = 0; i < first.size(); ++i) {
    const std::string_view name = name_of(first[i]);
    const auto flag =
        std::find_if(kFlags.begin(), kFlags.end(), [&](const Flag& f) { return f.name == name; });
    const bool has_value =
        flag != kFlags.end() && !flag->value.empty() && name == first[i] && i + 1 < first.size();
    const bool is_file =
        name == "--json" || name == "--csv" || name == "--plot" || name == "--kernels";
    if (!is_file && !is_given(name)) {
      all.push_back(first[i]);
      if (has_value) all.push_back(first[i + 1]);
    }
    i += has_value ? 1 : 0;
  }
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

void check_together(const Args& args, const Options& o) {
  if (!o.spans.empty() && o.has_visits()) {
    throw UsageError("--spans is for steps at given contexts, not for --run and --arrivals");
  }
  if (!o.kernels.empty() && (o.has_visits() || !o.captures)) {
    throw UsageError("--kernels is for steps at given contexts that are CUDA graphs (--graph)");
  }
  if (!o.plot.empty() && !o.has_visits()) throw UsageError("--plot needs --run or --arrivals");
  if (args.has("--skip") && !o.is_run) throw UsageError("--skip needs --run");
  if (!support::are_different_files({o.json, o.csv, o.plot, o.spans, o.kernels})) {
    throw UsageError("--json, --csv, --plot, --spans and --kernels must name different files");
  }
}

Options read_set(const Args& args) {
  Options o;
  o.wants_help = args.has("--help") || args.has("-h");
  if (o.wants_help) return o;
  read_lists(args, o);
  read_visits(args, o);
  if (args.has("--model")) o.model = args.text("--model");
  o.backend = args.choice("--backend", "auto", {"auto", "cpu", "cuda"});
  o.threads = static_cast<int>(args.count("--threads", 0, 1, 4096));
  o.dtype = support::weights_dtype(args);
  o.selection = {.budget = args.count("--budget", 2048, 1, kMostTokens),
                 .sinks = args.count("--sinks", 4, 0, kMostTokens),
                 .recent_window = args.count("--window", 64, 2, kMostTokens)};
  o.trace = args.has("--trace") ? args.text("--trace") : "data/traces/selection-smollm2-b512.bin";
  o.device_bytes = args.bytes("--device-memory", 0, 1);
  o.host_bytes = args.bytes("--host-memory", index_t{16} << 30);
  o.prefills = args.has("--prefill");
  o.captures = args.has("--graph");
  o.offloads_all = args.choice("--placement", "planned", {"planned", "host"}) == "host";
  o.chunk_rows = args.count("--chunk", o.chunk_rows, 1, index_t{1} << 16);
  const bool is_quick = args.has("--quick");
  o.warm_up = args.count("--warm-up", is_quick ? 4 : o.warm_up, 1, 100000);
  o.steps = args.count("--steps", is_quick ? 8 : o.steps, 1, 100000);
  o.repeats = args.count("--repeats", is_quick ? 1 : o.repeats, 1, 1000);
  o.profiled = args.count("--profile", is_quick ? 1 : o.profiled, 0, 1000);
  o.seconds = args.number("--seconds", 0, 0, 1e9);
  o.commit = args.has("--commit") ? args.text("--commit") : "not said";
  o.json = args.text("--json");
  o.csv = args.text("--csv");
  o.plot = args.text("--plot");
  o.spans = args.text("--spans");
  o.kernels = args.text("--kernels");
  check_together(args, o);
  return o;
}

}  // namespace

std::vector<Options> read_options(int argc, const char* const* argv) {
  std::vector<Words> sets(1);
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--next") {
      sets.emplace_back();
    } else {
      sets.back().push_back(argv[i]);
    }
  }
  std::vector<Options> all;
  for (const Words& own : sets) {
    Words words = all.empty() ? own : words_of(sets[0], own);
    for (const char* word : all.empty() ? Words{} : own) {
      for (const std::string_view shared :
           {"--model", "--dtype", "--backend", "--threads", "--trace", "--spans"}) {
        if (name_of(word) == shared)
          throw UsageError("--next: " + std::string(shared) + " is for all");
      }
    }
    words.insert(words.begin(), argv[0]);
    all.push_back(read_set(Args(static_cast<int>(words.size()), words.data(), kFlags)));
  }
  return all;
}

std::string help_text() {
  const std::span<const Flag> shown(kFlags.data(), kFlags.size() - 1);
  return "spectx-bench: decode steps of many requests, with spectx and with full attention: at a "
         "given\ncontext, over a whole run (--run), or while requests arrive and leave "
         "(--arrivals). Every\ncombination of the lists is measured.\n\nShapes: " +
         known_shapes() + ".\n\n" + support::describe(shown) +
         "\nThe table goes to standard output, everything else to standard error.\n"
         "Exit codes: 0; 1 after an error; 2 for a wrong command line; 3 where --seconds or a "
         "signal cut "
         "off what was asked for.\n";
}

}  // namespace spectx::bench
