// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <sstream>
#include <utility>

#include "file_error.hpp"
#include "head_spec.hpp"
#include "json_fields.hpp"

namespace spectx::io {
namespace {

/// Who wrote a config.json. They differ in where fields are and in what the fields mean.
enum class Family { eagle, angelslim, deepspec, speculators, other };

Family family_of(const JsonFields& config) {
  if (const auto type = config.text("speculators_model_type")) {
    if (*type == "eagle3") return Family::speculators;
    throw Unsupported(config.where() + ": a speculator of type " + in_quotes(*type) +
                      " is no EAGLE-3 head");
  }
  const std::string architecture = config.first_text("architectures").value_or("");
  if (architecture.find("eepseek") != std::string::npos) {
    throw Unsupported(config.where() + ": " + in_quotes(architecture) +
                      " has latent attention (MLA), which a retrieval head cannot have");
  }
  if (architecture == "LlamaForCausalLM") return Family::eagle;
  if (architecture == "Eagle3LlamaForCausalLM") return Family::angelslim;
  if (architecture == "Qwen3Eagle3Model") return Family::deepspec;
  return Family::other;
}

/// Layer ids of a config as the residual stream that enters layers. speculators (and vLLM) count
/// so; DeepSpec counts what leaves layers; of the others' lists those that begin with 1 do, as the
/// three trainers that default to 1, n / 2 - 1 and n - 4 write them.
void read_feature_layers(const JsonFields& config, Family family, HeadSpec& spec) {
  auto ids = config.ascending("eagle_aux_hidden_state_layer_ids");
  const auto nested = config.object("eagle_config");
  if (!ids && nested) ids = nested->ascending("eagle_aux_hidden_state_layer_ids");
  if (!ids) ids = config.ascending("target_layer_ids");
  if (nested && !nested->flag("use_aux_hidden_state").value_or(true)) {
    throw Unsupported(nested->where() +
                      ": use_aux_hidden_state is false: a head of the last hidden state alone");
  }
  if (!ids) return;
  const bool counts_outputs =
      family == Family::deepspec || (family != Family::speculators && ids->front() == 1);
  if (counts_outputs) {
    for (index_t& id : *ids) ++id;
  } else if (family != Family::speculators) {
    spec.notes.emplace_back("layer ids are taken to be layers whose input is tapped");
  }
  spec.feature_layers = std::move(*ids);
}

/// EAGLE's and AngelSlim's trainers rotate by 10000 whatever rope_theta says.
void distrust_theta(Family family, HeadSpec& spec) {
  constexpr float kTheta = 10000;
  if ((family != Family::eagle && family != Family::angelslim) || spec.rope.theta == kTheta) return;
  std::ostringstream note;
  note << "rope_theta " << spec.rope.theta << " is not what this trainer used: taken as 10000";
  spec.notes.push_back(note.str());
  spec.rope.theta = kTheta;
}

std::optional<bool> either(const JsonFields& config, const char* key) {
  const auto flag = config.flag(key);
  if (flag) return flag;
  const auto nested = config.object("eagle_config");
  return nested ? nested->flag(key) : std::nullopt;
}

HeadSpec read_config(const JsonFields& config) {
  const Family family = family_of(config);
  const auto nested = config.object("transformer_layer_config");
  if (family == Family::speculators && !nested) {
    config.fail("transformer_layer_config is missing");
  }
  const JsonFields& sizes = family == Family::speculators ? *nested : config;
  HeadSpec spec;
  spec.query_heads = sizes.needed_count("num_attention_heads");
  spec.kv_heads = sizes.count("num_key_value_heads");
  spec.k_dim = sizes.count("head_dim");
  spec.target_hidden = config.count("target_hidden_size");
  if (!spec.target_hidden) spec.target_hidden = sizes.count("hidden_size");
  spec.vocabulary = sizes.count("vocab_size");
  const auto eps = sizes.positive("rms_norm_eps");
  if (!eps) spec.notes.emplace_back("no rms_norm_eps: taken as 1e-6");
  spec.norm_eps = eps.value_or(spec.norm_eps);
  spec.rope = read_rope(sizes, spec.notes);
  distrust_theta(family, spec);
  read_feature_layers(config, family, spec);
  spec.has_joint_norm = either(config, "norm_before_fc");
  spec.has_each_norm = either(config, "fc_norm");
  spec.has_fc_bias = config.flag("bias");
  spec.has_qk_biases = sizes.flag("attention_bias");
  return spec;
}

/// What our trainer writes, a JSON text for each key.
constexpr std::array kOwnKeys = {"num_attention_heads", "num_key_value_heads", "head_dim",
                                 "rms_norm_eps",        "rope_theta",          "rope_scaling"};

HeadSpec read_own(const Safetensors& file) {
  const std::string where = printable(file.path()) + ": metadata";
  JsonFields fields(nlohmann::json::object(), where);
  for (const char* key : kOwnKeys) {
    const auto entry = file.metadata().find(key);
    if (entry == file.metadata().end()) continue;
    fields.set(key, entry->second);
  }
  for (const char* key : {"num_key_value_heads", "head_dim", "rope_theta", "rms_norm_eps"}) {
    if (!fields.has(key)) fields.fail(std::string(key) + " is missing");
  }
  HeadSpec spec = read_config(fields);
  spec.has_sizes_of_tensors = true;
  return spec;
}

/// "rope_theta": instead of what the config says, its scaling kept.
void override_theta(const Safetensors& file, HeadSpec& spec) {
  const auto entry = file.metadata().find("rope_theta");
  if (entry == file.metadata().end()) return;
  JsonFields fields(nlohmann::json::object(), printable(file.path()) + ": metadata");
  fields.set("rope_theta", entry->second);
  spec.rope.theta = fields.positive("rope_theta").value_or(spec.rope.theta);
}

/// "group_reduce": how the scores of a KV head's query heads are to become one.
void read_reduce(const Safetensors& file, HeadSpec& spec) {
  const auto entry = file.metadata().find("group_reduce");
  if (entry == file.metadata().end()) return;
  if (entry->second != "max" && entry->second != "mean") {
    fail(file.path(), "metadata", "group_reduce must be max or mean");
  }
  spec.reduce = entry->second == "mean" ? GroupReduce::mean : GroupReduce::max;
}

}  // namespace

HeadSpec parse_head_config(std::string_view text, std::string_view file) {
  constexpr std::size_t kMostBytes = std::size_t{1} << 20;
  if (text.size() > kMostBytes) fail(file, "", "too large for a config.json");
  return read_config(JsonFields::parse(text, file));
}

std::optional<HeadSpec> head_spec_of(const Safetensors& file) {
  const auto& metadata = file.metadata();
  const auto config = metadata.find("config");
  const auto layers = metadata.find("feature_layers");
  if (config == metadata.end() && layers == metadata.end()) return std::nullopt;
  HeadSpec spec = config == metadata.end()
                      ? read_own(file)
                      : parse_head_config(config->second, file.path() + ": config");
  spec.prefers_own_embeddings = true;
  const auto target = metadata.find("target");
  if (target != metadata.end()) spec.target = printable(target->second);
  read_reduce(file, spec);
  if (config != metadata.end()) override_theta(file, spec);
  if (layers == metadata.end()) return spec;
  JsonFields fields(nlohmann::json::object(), printable(file.path()) + ": metadata");
  fields.set("feature_layers", layers->second);
  auto ids = fields.ascending("feature_layers");
  if (!ids) fields.fail("feature_layers is missing");
  spec.feature_layers = std::move(*ids);
  for (index_t& layer : spec.feature_layers) ++layer;  // after a layer is before the next one
  return spec;
}

}  // namespace spectx::io
