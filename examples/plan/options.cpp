// SPDX-License-Identifier: Apache-2.0
#include "plan/options.hpp"

#include <array>

#include "spectx/cuda/scratch.hpp"

namespace spectx::plan {
namespace {

using support::Args;
using support::Flag;
using support::UsageError;

constexpr std::array kFlags = {
    Flag{"--config", "FILE", "config.json of the transformers library"},
    Flag{"--gguf", "FILE", "a GGUF file"},
    Flag{"--layers", "N", "or the model's dimensions, one by one"},
    Flag{"--query-heads", "N", ""},
    Flag{"--kv-heads", "N", "default: as many as query heads"},
    Flag{"--head-dim", "N", "default: hidden / query heads"},
    Flag{"--hidden", "N", ""},
    Flag{"--vocab", "N", ""},
    Flag{"--feed-forward", "N", "default: 3.5 x hidden; for the weights' size only"},
    Flag{"--dtype", "NAME", "of the cached rows: f32, f16 or bf16; default: the model's"},
    Flag{"--model-bytes", "BYTES", "weights and activations, instead of an estimate"},
    Flag{"--no-head", "", "plan without a retrieval head"},
    Flag{"--device-memory", "BYTES", "cap of the device's memory; K, M, G, T; default 80G"},
    Flag{"--host-memory", "BYTES", "cap of the host tier; default 128G"},
    Flag{"--host-dtype", "NAME", "of the host tier: fp8 or int8; default: the cached rows' own"},
    Flag{"--one-memory", "", "host and device memory are the same"},
    Flag{"--requests", "N", "at once, at most; default 32"},
    Flag{"--length", "N", "tokens of one request at its end; default 32768"},
    Flag{"--budget", "N", "tokens that a step reads; default 2048"},
    Flag{"--max-budget", "N", "the same, where the head is unsure; default: the budget"},
    Flag{"--hot-buffer", "X", "device slots of an offloaded layer / budget; default 2"},
    Flag{"--chunk", "N", "prompt tokens of one step; default 512"},
    Flag{"--compute-dtype", "NAME", "of the head's activations: f32, f16, bf16; default f32"},
    Flag{"--model", "NAME", "when layers leave: exact, paper or paper-corrected; default exact"},
    Flag{"--device-rate", "GB/S", "with --link-rate: predict the step, and the best batch"},
    Flag{"--link-rate", "GB/S", "of gathering rows from host memory"},
    Flag{"--miss-scale", "X", "times the recorded miss rate, in the prediction; default 1"},
    Flag{"--json", "", "the same as JSON"},
    Flag{"--help", "", "this text"},
    Flag{"-h", "", ""},
};
constexpr index_t kMaxDim = index_t{1} << 20;

DType dtype_named(const std::string& name) {
  if (name == "f32") return DType::f32;
  return name == "f16" ? DType::f16 : DType::bf16;
}

ModelSource model_of_flags(const Args& args) {
  for (const char* name : {"--layers", "--query-heads", "--hidden", "--vocab"}) {
    if (!args.has(name)) {
      throw UsageError(std::string(name) + " is missing (or give --config or --gguf)");
    }
  }
  ModelSource source;
  source.name = "by flags";
  ModelShape& s = source.shape;
  s.layers = args.count("--layers", 0, 1, 1 << 16);
  s.query_heads = args.count("--query-heads", 0, 1, kMaxDim);
  s.kv_heads = args.count("--kv-heads", s.query_heads, 1, kMaxDim);
  s.hidden = args.count("--hidden", 0, 1, kMaxDim);
  s.vocabulary = args.count("--vocab", 0, 1, kMaxDim);
  s.k_dim = s.v_dim = args.count("--head-dim", s.hidden / s.query_heads, 1, kMaxDim);
  s.dtype = dtype_named(args.choice("--dtype", "bf16", {"f32", "f16", "bf16"}));
  source.weight_bytes =
      estimate_weight_bytes(s, {.feed_forward = args.count("--feed-forward", 0, 1, kMaxDim)});
  source.weight_origin = "estimated from the dimensions, unquantised, without activations";
  return source;
}

ModelSource read_model(const Args& args) {
  if (args.has("--config") && args.has("--gguf")) {
    throw UsageError("--config and --gguf exclude each other");
  }
  const bool has_file = args.has("--config") || args.has("--gguf");
  for (const char* name : {"--layers", "--query-heads", "--kv-heads", "--head-dim", "--hidden",
                           "--vocab", "--feed-forward"}) {
    if (has_file && args.has(name)) {
      throw UsageError(std::string(name) + " comes from the file and cannot be given too");
    }
  }
  ModelSource source = args.has("--config") ? read_hf_config(args.text("--config"))
                       : args.has("--gguf") ? read_gguf(args.text("--gguf"))
                                            : model_of_flags(args);
  if (args.has("--dtype")) {
    source.shape.dtype = dtype_named(args.choice("--dtype", "", {"f32", "f16", "bf16"}));
  }
  if (args.has("--model-bytes")) {
    source.weight_bytes = args.bytes("--model-bytes", 0);
    source.weight_origin = "as given";
  }
  return source;
}

/// A head of EAGLE-3's form with the model's own heads: fc of three features, two norms, Q and K.
void add_head(const ModelShape& shape, PlannerConfig& config) {
  config.head = {
      .query_heads = shape.query_heads, .kv_heads = shape.kv_heads, .k_dim = shape.k_dim};
  const double hidden = static_cast<double>(shape.hidden);
  const double columns =
      static_cast<double>(shape.query_heads + shape.kv_heads) * static_cast<double>(shape.k_dim);
  config.head_weight_bytes =
      static_cast<index_t>((3 * hidden * hidden + 2 * hidden * columns + 2 * hidden) *
                           static_cast<double>(dtype_bytes(shape.dtype)));
}

PlannerConfig read_config(const Args& args, const ModelSource& model) {
  PlannerConfig c;
  const std::string name = args.choice("--model", "exact", {"exact", "paper", "paper-corrected"});
  c.model = name == "exact"   ? PlannerModel::exact
            : name == "paper" ? PlannerModel::paper
                              : PlannerModel::paper_corrected;
  c.device_bytes = args.bytes("--device-memory", index_t{80} << 30, 1);
  c.host_bytes = args.bytes("--host-memory", index_t{128} << 30);
  c.model_bytes = model.weight_bytes;
  c.has_one_memory = args.has("--one-memory");
  c.host_dtype = support::host_dtype(args);
  c.max_requests = args.count("--requests", 32, 1, kMaxDim);
  c.max_length = args.count("--length", 32'768, 1, detail::kMaxRows);
  c.max_step_rows = args.count("--chunk", 512, 1, 1 << 24) + c.max_requests;
  c.selection.budget = args.count("--budget", 2048, 1, detail::kMaxRows);
  c.selection.max_budget = args.count("--max-budget", 0, 1, detail::kMaxRows);
  c.hot_buffer = args.number("--hot-buffer", 2, 1, 1024);
  c.compute_dtype = dtype_named(args.choice("--compute-dtype", "f32", {"f32", "f16", "bf16"}));
  if (!args.has("--no-head")) add_head(model.shape, c);
  if (!c.has_one_memory) c.scratch_bytes = cu::scratch_bytes(scratch_shape(model.shape, c));
  return c;
}

}  // namespace

std::string help_text() {
  return "usage: spectx-plan (--config FILE | --gguf FILE | --layers N --query-heads N --hidden N "
         "--vocab N) [options]\n"
         "What a model's cache takes of both memories, and which layers live where.\n\n" +
         support::describe(kFlags);
}

std::optional<Options> read_options(int argc, const char* const* argv) {
  const Args args(argc, argv, kFlags);
  if (args.has("--help") || args.has("-h")) return std::nullopt;
  if (args.has("--device-rate") != args.has("--link-rate")) {
    throw UsageError("--device-rate and --link-rate are given together");
  }
  for (const char* name : {"--host-memory", "--host-dtype"}) {
    if (args.has("--one-memory") && args.has(name)) {
      throw UsageError(std::string(name) + " needs two memories, not --one-memory");
    }
  }
  if (args.has("--miss-scale") && !args.has("--link-rate")) {
    throw UsageError("--miss-scale needs --device-rate and --link-rate");
  }
  Options options;
  options.model = read_model(args);
  detail::check_dimensions(options.model.shape, {});
  options.config = read_config(args, options.model);
  options.is_json = args.has("--json");
  if (args.has("--device-rate")) {
    options.rates = MachineRates{.device_gb_s = args.number("--device-rate", 0, 1e-3, 1e9),
                                 .link_gb_s = args.number("--link-rate", 0, 1e-3, 1e9),
                                 .miss_scale = args.number("--miss-scale", 1, 0, 1e3)};
  }
  return options;
}

}  // namespace spectx::plan
