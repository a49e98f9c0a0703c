// SPDX-License-Identifier: Apache-2.0
#include "eval/options.hpp"

#include <algorithm>
#include <array>

#include "eval/needles.hpp"
#include "support/args.hpp"
#include "support/atomic_file.hpp"

namespace spectx::eval {
namespace {

using support::Args;
using support::Flag;
using support::split;
using support::UsageError;

constexpr index_t kMostTokens = index_t{1} << 30;
constexpr std::size_t kNumNamed = kSelectorNames.size() - 1;  // the guard has a flag of its own

constexpr std::array<Flag, 30> kFlags = {{
    {"--model", "FILE.gguf", "a model of the Llama family"},
    {"--head", "PATH", "its retrieval head: a folder, .safetensors or .gguf"},
    {"--head-theta", "T", "RoPE theta of the head, instead of its file's"},
    {"--texts", "PATH[,PATH]", "text files, or folders of them; each is one text"},
    {"--lengths", "N[,N]", "tokens that are read of a text (default 8192)"},
    {"--budgets", "N[,N]", "rows that each KV head reads (default 256,512,1024)"},
    {"--max-texts", "N", "measure the first N texts that are long enough (default: all)"},
    {"--positions", "N", "last tokens of a text that are measured (default 128)"},
    {"--needles", "N",
     "sentences to hide in each text and ask for, at even depths; one counts\n"
     "where full attention finds it (default 5; 0: none)"},
    {"--needle-lead", "X",
     "logits by which full attention has to prefer every token of a needle to\n"
     "others for it to count (default 0): with less than 0.5, rounding decides"},
    {"--selectors", "NAME[,NAME]",
     "who selects: head, shared (best set for all layers), per-layer (best\n"
     "sets), pages (bounds of 16 keys, as Quest), recent, random (default: all)"},
    {"--sinks", "N", "first tokens that are always selected (default 4)"},
    {"--window", "N", "last tokens that are always selected (default 64)"},
    {"--group", "HOW", "max or mean over the query heads of a KV head (default: the head's)"},
    {"--level", "LEVEL", "head (default): every KV head has a selection; batch: one for all"},
    {"--min-coverage", "X",
     "measure the guard too: a step takes more rows until the head's own\n"
     "softmax mass on its selection is X"},
    {"--max-budget", "N",
     "most rows that the guard takes before it reads all (default: 2 budgets)"},
    {"--capped", "", "but never more than --max-budget"},
    {"--hysteresis", "X",
     "share of what it may miss that a step must have to spare before it reads\n"
     "fewer rows than the step before (default 0.25)"},
    {"--buffers", "X[,X]", "slots as multiples of the budget (default 1,1.5,2,3,4)"},
    {"--seed", "S", "of the random selector and the needles' numbers (default 0)"},
    {"--jobs", "N",
     "measure N texts at once, each with a copy of the model (default 1): a GPU\n"
     "is idle for most of one text's time"},
    {"--backend", "NAME", "cpu, cuda, or auto (the default): cuda where a device is there"},
    {"--threads", "N", "of the CPU; default: one a core"},
    {"--dtype", "TYPE", "of weights and cached rows: bf16 (default), f16 or f32"},
    {"--json", "FILE", "write every figure there"},
    {"--csv", "FILE", "write the table there"},
    {"--plots", "FILE.svg", "write charts there"},
    {"--help", "", "this text"},
    {"-h", "", ""},
}};

/// Numbers in [min, max], each once, ascending.
template <class Number>
std::vector<Number> numbers(const Args& args, std::string_view name, std::string_view otherwise,
                            Number min, Number max) {
  std::vector<Number> all = args.numbers(name, otherwise, min, max);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

std::vector<Selector> read_selectors(const Args& args) {
  std::vector<Selector> all;
  for (std::size_t i = 0; i < kNumNamed; ++i) all.push_back(static_cast<Selector>(i));
  if (!args.has("--selectors")) return all;
  std::vector<std::string> asked = split(args.text("--selectors"));
  for (const std::string& name : asked) {
    const auto end = kSelectorNames.begin() + kNumNamed;
    if (std::find(kSelectorNames.begin(), end, name) == end) {
      throw UsageError("--selectors has no \"" + name + "\"");
    }
  }
  std::erase_if(all, [&](Selector s) {
    return std::find(asked.begin(), asked.end(), name_of(s)) == asked.end();
  });
  return all;
}

}  // namespace

Options read_options(int argc, const char* const* argv) {
  const Args args(argc, argv, kFlags);
  Options o;
  o.wants_help = args.has("--help") || args.has("-h");
  if (o.wants_help) return o;
  for (const char* needed : {"--model", "--head", "--texts"}) {
    if (args.text(needed).empty()) throw UsageError(std::string(needed) + " is missing");
  }
  o.model = args.text("--model");
  o.head = args.text("--head");
  o.head_theta = support::head_theta(args);
  o.texts = split(args.text("--texts"));
  o.lengths = numbers<index_t>(args, "--lengths", "8192", 2, kMostTokens);
  o.budgets = numbers<index_t>(args, "--budgets", "256,512,1024", 1, kMostTokens);
  o.selectors = read_selectors(args);
  o.buffers = numbers<double>(args, "--buffers", "1,1.5,2,3,4", 1, 1024);
  o.max_texts = args.count("--max-texts", 0, 1, kMostTokens);
  o.positions = args.count("--positions", o.positions, 1, kMostTokens);
  o.needles = args.count("--needles", o.needles, 0, kMostNeedles);
  o.needle_lead = args.number("--needle-lead", 0, 0, 100);
  o.sinks = args.count("--sinks", o.sinks, 0, kMostTokens);
  o.window = args.count("--window", o.window, 1, kMostTokens);
  if (args.has("--group")) {
    o.reduce =
        args.choice("--group", "", {"max", "mean"}) == "max" ? GroupReduce::max : GroupReduce::mean;
  }
  o.level = args.choice("--level", "head", {"head", "batch"}) == "head" ? SelectionLevel::head
                                                                        : SelectionLevel::batch;
  o.min_coverage = static_cast<float>(args.number("--min-coverage", 0, 0, 1));
  o.max_budget = args.count("--max-budget", 0, 1, kMostTokens);
  o.is_capped = args.has("--capped");
  o.hysteresis = static_cast<float>(args.number("--hysteresis", o.hysteresis, 0, 0.99));
  for (const char* name : {"--max-budget", "--capped", "--hysteresis"}) {
    if (!args.has(name) || o.min_coverage > 0) continue;
    throw UsageError(std::string(name) + " needs --min-coverage");
  }
  if (o.min_coverage > 0) o.selectors.push_back(Selector::guard);
  o.seed = static_cast<std::uint64_t>(args.count("--seed", 0));
  o.jobs = args.count("--jobs", 1, 1, 256);
  o.backend = args.choice("--backend", "auto", {"auto", "cpu", "cuda"});
  o.threads = static_cast<int>(args.count("--threads", 0, 1, 4096));
  o.dtype = support::weights_dtype(args);
  o.json = args.text("--json");
  o.csv = args.text("--csv");
  o.plots = args.text("--plots");
  if (!support::are_different_files({o.json, o.csv, o.plots})) {
    throw UsageError("--json, --csv and --plots must name different files");
  }
  return o;
}

std::string help_text() {
  const std::span<const Flag> shown(kFlags.data(), kFlags.size() - 1);
  return "spectx-eval: what a retrieval head's selections keep of a model's attention, and what\n"
         "they cost, on texts.\n\n"
         "spectx-eval --model FILE.gguf --head PATH --texts FOLDER [--json FILE]\n\n" +
         support::describe(shown) +
         "\nThe table goes to standard output, everything else to standard error.\n"
         "Exit codes: 0; 1 after an error; 2 for a wrong command line.\n";
}

index_t first_position(const Options& o, index_t length) {
  const index_t answered = o.needles > 0 ? kMostAnswerTokens : 0;
  return length - std::max(o.positions, answered);
}

index_t most_rows(const Options& o, index_t budget, index_t length) {
  if (o.min_coverage == 0) return budget;
  const index_t wanted = o.max_budget > 0 ? std::max(o.max_budget, budget) : 2 * budget;
  return std::min(wanted, first_position(o, length));
}

void check_budgets(const Options& o) {
  const std::string forced =
      "--sinks " + std::to_string(o.sinks) + " and --window " + std::to_string(o.window);
  if (o.budgets.front() <= o.sinks + o.window) {
    throw InvalidArgument("--budgets " + std::to_string(o.budgets.front()) +
                          " must be larger than " + forced + " together");
  }
  for (const index_t length : o.lengths) {
    const index_t first = first_position(o, length);
    if (first <= o.sinks + o.window + 1) {
      throw InvalidArgument("--lengths " + std::to_string(length) + " leaves no room for " +
                            forced + " before the last --positions " + std::to_string(o.positions));
    }
    for (const index_t budget : o.budgets) {
      if (budget <= first || budget >= length) continue;
      throw InvalidArgument("--budgets " + std::to_string(budget) +
                            " is the length of a text within its last --positions: at --lengths " +
                            std::to_string(length) + " it must be at most " +
                            std::to_string(first) + ", or the whole length");
    }
  }
}

}  // namespace spectx::eval
