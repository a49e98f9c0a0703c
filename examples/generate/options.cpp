// SPDX-License-Identifier: Apache-2.0
#include "generate/options.hpp"

#include <array>

#include "support/args.hpp"
#include "support/atomic_file.hpp"

namespace spectx::generate {
namespace {

using support::Args;
using support::Flag;
using support::UsageError;

constexpr index_t kMostTokens = index_t{1} << 30;

constexpr std::array<Flag, 31> kFlags = {{
    {"--model", "FILE.gguf", "a model of the Llama family"},
    {"--head", "PATH", "its retrieval head: a folder, .safetensors or .gguf; not for --full"},
    {"--head-theta", "T", "RoPE theta of the head, instead of its file's"},
    {"--prompt", "TEXT", "the prompt; without it, standard input"},
    {"--prompt-file", "FILE", "the prompt, from a file"},
    {"--chat", "", "put the prompt in the model's chat template"},
    {"--truncate", "", "cut the beginning of a prompt that is too long"},
    {"--budget", "N", "rows that each KV head reads in a step (default 512)"},
    {"--min-coverage", "X",
     "share of the head's attention that a step must read, or it reads more"},
    {"--max-budget", "N", "rows that such a step reads before it reads everything"},
    {"--capped", "", "but never more than --max-budget"},
    {"--sinks", "N", "first tokens that are always among them (default 4)"},
    {"--window", "N", "last tokens that are always among them (default 64)"},
    {"--max-tokens", "N", "tokens to generate (default 128)"},
    {"--no-stop", "", "go on after the model's end token"},
    {"--full", "", "full attention, without spectx"},
    {"--compare", "", "both texts, one after the other, and how they differ"},
    {"--temp", "T", "sampling temperature; 0, the default, is greedy"},
    {"--top-p", "P", "sample from the likeliest tokens that sum to P (default 1)"},
    {"--seed", "S", "of the sampling (default 0)"},
    {"--backend", "NAME", "cpu, cuda, or auto (the default): cuda where a device is there"},
    {"--threads", "N", "of the CPU; default: one a core"},
    {"--dtype", "TYPE", "of weights and cached rows: bf16 (default), f16 or f32"},
    {"--device-memory", "BYTES",
     "most of the GPU's memory to use (64M, 2G; default: what is free);\n"
     "on a CPU: keep two tiers apart and give the device this much"},
    {"--host-memory", "BYTES", "most for the host tier (default 4G)"},
    {"--host-dtype", "TYPE", "of the host tier: fp8 or int8 (default: as --dtype, without loss)"},
    {"--graph", "", "launch each decode step as one CUDA graph"},
    {"--json", "FILE", "write the figures and the tokens there"},
    {"--trace", "FILE", "write a trace for ui.perfetto.dev or chrome://tracing there"},
    {"--help", "", "this text"},
    {"-h", "", ""},
}};

Mode read_mode(const Args& args) {
  if (args.has("--full") && args.has("--compare")) {
    throw UsageError("--full and --compare exclude each other");
  }
  return args.has("--full") ? Mode::full : args.has("--compare") ? Mode::compare : Mode::selected;
}

void check_together(const Options& o) {
  if (o.model.empty()) throw UsageError("--model is missing");
  if (o.head.empty() && o.mode != Mode::full) {
    throw UsageError("--head is missing (or pass --full)");
  }
  if (o.prompt && o.prompt_file) {
    throw UsageError("--prompt and --prompt-file exclude each other");
  }
  const SelectionConfig& s = o.selection;
  if (!s.has_guard() && (s.max_budget > 0 || !s.may_read_all)) {
    throw UsageError("--max-budget and --capped need --min-coverage");
  }
  if (!support::are_different_files({o.json, o.trace})) {
    throw UsageError("--json and --trace must name different files");
  }
}

}  // namespace

Options read_options(int argc, const char* const* argv) {
  const Args args(argc, argv, kFlags);
  Options o;
  o.wants_help = args.has("--help") || args.has("-h");
  if (o.wants_help) return o;
  o.mode = read_mode(args);
  o.model = args.text("--model");
  o.head = args.text("--head");
  o.head_theta = support::head_theta(args);
  if (args.has("--prompt")) o.prompt = args.text("--prompt");
  if (args.has("--prompt-file")) o.prompt_file = args.text("--prompt-file");
  o.is_chat = args.has("--chat");
  o.truncates = args.has("--truncate");
  o.stops = !args.has("--no-stop");
  o.selection = {.budget = args.count("--budget", 512, 0, kMostTokens),
                 .sinks = args.count("--sinks", 4, 0, kMostTokens),
                 .recent_window = args.count("--window", 64, 1, kMostTokens),
                 .max_budget = args.count("--max-budget", 0, 1, kMostTokens),
                 .min_coverage = static_cast<float>(args.number("--min-coverage", 0, 0, 1)),
                 .may_read_all = !args.has("--capped")};
  o.max_tokens = args.count("--max-tokens", o.max_tokens, 1, kMostTokens);
  o.sampling = {.temperature = args.number("--temp", 0, 0, 1000),
                .top_p = args.number("--top-p", 1, 1e-6, 1),
                .seed = static_cast<std::uint64_t>(args.count("--seed", 0))};
  o.backend = args.choice("--backend", "auto", {"auto", "cpu", "cuda"});
  o.threads = static_cast<int>(args.count("--threads", 0, 1, 4096));
  o.dtype = support::weights_dtype(args);
  o.has_two_memories = args.has("--device-memory");
  o.device_bytes = args.bytes("--device-memory", 0, 1);
  o.host_bytes = args.bytes("--host-memory", index_t{4} << 30);
  o.sets_host_bytes = args.has("--host-memory");
  o.host_dtype = support::host_dtype(args);
  o.captures = args.has("--graph");
  o.json = args.text("--json");
  o.trace = args.text("--trace");
  check_together(o);
  return o;
}

std::string help_text() {
  const std::span<const Flag> shown(kFlags.data(), kFlags.size() - 1);
  return "spectx-generate: continues a prompt with a model of the Llama family, reading only the\n"
         "cached rows that a retrieval head chooses.\n\n"
         "spectx-generate --model FILE.gguf --head PATH --prompt-file FILE "
         "[--compare]\n"
         "\n" +
         support::describe(shown) +
         "\nThe text goes to standard output, everything else to standard error.\n"
         "Exit codes: 0; 1 after an error; 2 for a wrong command line.\n";
}

}  // namespace spectx::generate
