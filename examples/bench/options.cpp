// SPDX-License-Identifier: Apache-2.0
#include "bench/options.hpp"

#include <array>

#include "bench/model_shapes.hpp"
#include "support/args.hpp"

namespace spectx::bench {
namespace {

using support::Args;
using support::Flag;
using support::UsageError;

constexpr index_t kMostTokens = index_t{1} << 24;
constexpr index_t kMostRequests = 99'999;

constexpr std::array<Flag, 43> kFlags = {{
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
    {"--seconds", "S", "begin no configuration later than that; cut off a run that takes longer"},
    {"--commit", "TEXT", "that is measured, for the record"},
    {"--json", "FILE", "write every figure there"},
    {"--csv", "FILE", "write the figures of each configuration there, or every sample"},
    {"--plot", "FILE", "write an SVG of the samples there"},
    {"--spans", "FILE", "write a trace of the steps that count there, for ui.perfetto.dev"},
    {"--quick", "", "8 steps after 4, once"},
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

}  // namespace

Options read_options(int argc, const char* const* argv) {
  const Args args(argc, argv, kFlags);
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
  o.device_bytes = args.bytes("--device-memory", 0);
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
  if (!o.spans.empty() && o.has_visits()) {
    throw UsageError("--spans is for steps at given contexts, not for --run and --arrivals");
  }
  return o;
}

std::string help_text() {
  const std::span<const Flag> shown(kFlags.data(), kFlags.size() - 1);
  return "spectx-bench: decode steps of many requests, with spectx and with full attention: at a "
         "given\ncontext, over a whole run (--run), or while requests arrive and leave "
         "(--arrivals). Every\ncombination of the lists is measured.\n\nShapes: " +
         known_shapes() + ".\n\n" + support::describe(shown) +
         "\nThe table goes to standard output, everything else to standard error.\n"
         "Exit codes: 0; 1 after an error; 2 for a wrong command line.\n";
}

}  // namespace spectx::bench
