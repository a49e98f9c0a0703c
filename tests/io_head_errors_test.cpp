// SPDX-License-Identifier: Apache-2.0
// Heads of another kind, for another model, or broken: one clear error each.
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io_support.hpp"
#include "spectx/io/head_file.hpp"
#include "support/backends.hpp"

namespace spectx::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path kHeads = fs::path(SPECTX_TEST_DATA) / "heads";

ModelShape target() {
  return {.layers = 12,
          .query_heads = 4,
          .kv_heads = 2,
          .k_dim = 8,
          .v_dim = 8,
          .hidden = 16,
          .vocabulary = 40,
          .dtype = DType::f32,
          .rope = {},
          .attention = {}};
}

void load(const std::string& path, const ModelShape& shape = target(),
          const io::HeadOptions& options = {}) {
  const auto backend = make_backend({.threads = 1});
  std::vector<float> embeddings(static_cast<std::size_t>(shape.vocabulary * shape.hidden));
  const TensorView table =
      matrix_view(embeddings.data(), DType::f32, shape.vocabulary, shape.hidden);
  io::load_head(*backend, path, shape, table, options, {});
}

/// What is said of a copy of `kind` whose config was changed.
template <class Change>
std::string refusal(const std::string& kind, const Change& change) {
  const TemporaryFolder folder;
  json config = json::parse(contents(kHeads / kind / "config.json"));
  change(config);
  folder.write("config.json", config.dump());
  folder.write("model.safetensors", contents(kHeads / kind / "model.safetensors"));
  return message_of<Error>([&] { load(folder.path().string()); });
}

void require_parts(const std::string& message, const std::vector<std::string>& parts) {
  CAPTURE(message);
  REQUIRE(message.find('\n') == std::string::npos);
  for (const std::string& part : parts) {
    CAPTURE(part);
    REQUIRE(message.find(part) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("A head of another model is refused with everything that differs") {
  ModelShape wider = target();
  wider.hidden = 24;
  wider.vocabulary = 50;
  wider.layers = 8;
  const std::string folder = (kHeads / "specforge").string();
  require_parts(message_of<InvalidArgument>([&] { load(folder, wider); }),
                {folder, "fc.weight is [16, 48], needed [24, 72]",
                 "midlayer.input_layernorm.weight is [16], needed [24]",
                 "midlayer.self_attn.q_proj.weight is [32, 32], needed [32, 48]",
                 "fc_norm.2.weight is [16], needed [24]", "feature layer 9",
                 "a model of hidden size 16", "a vocabulary of 40"});
  ModelShape other = target();
  other.vocabulary = 41;
  require_parts(message_of<InvalidArgument>([&] { load((kHeads / "gguf.gguf").string(), other); }),
                {"a vocabulary of 40"});
  ModelShape shallow = target();
  shallow.layers = 4;
  require_parts(message_of<InvalidArgument>([&] { load((kHeads / "eagle").string(), shallow); }),
                {"feature layers [2, 2, 1] do not ascend"});
  require_parts(message_of<InvalidArgument>([&] {
                  load((kHeads / "eagle").string(), target(), {.feature_layers = {2, 5}});
                }),
                {"fc.weight is [16, 48], needed [16, 32]"});
}

TEST_CASE("A config that its tensors contradict is refused") {
  require_parts(refusal("eagle", [](json& c) { c["bias"] = true; }),
                {"bias is true, but fc.bias is missing"});
  require_parts(refusal("angelslim", [](json& c) { c["attention_bias"] = false; }),
                {"attention_bias is false, but midlayer.self_attn.q_proj.bias is there",
                 "midlayer.self_attn.k_proj.bias is there"});
  require_parts(refusal("speculators", [](json& c) { c["norm_before_fc"] = false; }),
                {"norm_before_fc is false, but input_norm.weight is there"});
  require_parts(refusal("eagle", [](json& c) { c["fc_norm"] = true; }),
                {"fc_norm is true, but fc_norm.0.weight is missing"});
  require_parts(refusal("eagle", [](json& c) { c["num_key_value_heads"] = 4; }),
                {"k_proj.weight has rows for 2 KV heads, not 4"});
  require_parts(refusal("eagle", [](json& c) { c["num_attention_heads"] = 3; }),
                {"32 rows: no even number for 3 query heads"});
  require_parts(refusal("eagle_narrow", [](json& c) { c["target_hidden_size"] = 32; }),
                {"a model of hidden size 32"});
}

TEST_CASE("A config that cannot be read names the field") {
  const auto with = [](const char* key, const json& value) {
    return refusal("specforge", [&](json& c) { c[key] = value; });
  };
  require_parts(with("num_attention_heads", nullptr),
                {"config.json: num_attention_heads is missing"});
  require_parts(with("num_attention_heads", 0), {"num_attention_heads must be a whole number"});
  require_parts(with("vocab_size", "many"), {"vocab_size must be a whole number"});
  require_parts(with("rope_theta", 0.5), {"rope_theta must be above 1"});
  require_parts(with("rope_theta", 1e300), {"rope_theta must be a number below 1e30"});
  require_parts(with("fc_norm", "yes"), {"fc_norm must be true or false"});
  require_parts(with("architectures", "one"), {"architectures must be a list of strings"});
  require_parts(with("partial_rotary_factor", 0.5), {"part of a head is not supported"});
  require_parts(with("eagle_config", json::array()), {"eagle_config must be an object"});
  require_parts(with("eagle_aux_hidden_state_layer_ids", {3, 2, 1}),
                {"eagle_aux_hidden_state_layer_ids must be an ascending list"});
  const auto scaled = [&](const json& value) { return with("rope_scaling", value); };
  require_parts(scaled({{"type", "dynamic"}, {"factor", 2}}), {"'dynamic' is not supported"});
  require_parts(scaled({{"type", "linear"}, {"factor", 0.5}}), {"factor must be at least 1"});
  require_parts(scaled({{"rope_type", "llama3"}, {"factor", 2}}),
                {"original_max_position_embeddings is missing"});
}

TEST_CASE("Heads that cannot be retrieval heads are refused as such") {
  require_parts(refusal("speculators", [](json& c) { c["speculators_model_type"] = "eagle"; }),
                {"'eagle' is no EAGLE-3 head"});
  require_parts(refusal("speculators", [](json& c) { c.erase("transformer_layer_config"); }),
                {"transformer_layer_config is missing"});
  require_parts(
      refusal("eagle", [](json& c) { c["architectures"] = {"Eagle3DeepseekV2ForCausalLM"}; }),
      {"latent attention"});
  require_parts(
      refusal("specforge", [](json& c) { c["eagle_config"]["use_aux_hidden_state"] = false; }),
      {"use_aux_hidden_state is false"});
}

TEST_CASE("Files that are no heads are refused, and what to do is said") {
  const TemporaryFolder folder;
  const std::string none = folder.path().string();
  require_parts(message_of([&] { load(none + "/none"); }), {"cannot be opened"});
  require_parts(message_of([&] { load(none); }), {"has no model.safetensors"});
  folder.write("pytorch_model.bin", "PK\x03\x04");
  require_parts(message_of([&] { load(none); }), {"spectx-convert-head"});
  require_parts(message_of([&] { load(none + "/pytorch_model.bin"); }), {"spectx-convert-head"});
  folder.write("model.safetensors", contents(kHeads / "eagle/model.safetensors"));
  require_parts(message_of([&] { load(none); }), {"config.json"});
  folder.write("config.json", "[1]");
  require_parts(message_of([&] { load(none); }), {"config.json: not a JSON object"});
  folder.write("config.json", "{");
  require_parts(message_of([&] { load(none); }), {"config.json: not JSON"});
  folder.write("config.json", std::string(2 << 20, ' '));
  require_parts(message_of([&] { load(none); }), {"too large for a config.json"});
  const std::string model = std::string(SPECTX_TEST_DATA) + "/quantized.gguf";
  REQUIRE_THROWS_AS(load(model), Error);
}

TEST_CASE("Every file cut short or changed gives a head or an error") {
  const std::string kind = GENERATE("eagle/config.json", "speculators/config.json",
                                    "eagle/model.safetensors", "gguf.gguf", "gguf_first.gguf");
  CAPTURE(kind);
  const TemporaryFolder folder;
  const std::string good = contents(kHeads / kind);
  const bool is_gguf = kind.find(".gguf") != std::string::npos;
  const std::string name = is_gguf ? "head.gguf" : fs::path(kind).filename().string();
  if (!is_gguf) {
    for (const char* file : {"config.json", "model.safetensors"}) {
      folder.write(file, contents((kHeads / kind).parent_path() / file));
    }
  }
  const auto try_to_load = [&](const std::string& bytes) {
    const std::string path = folder.write(name, bytes);
    try {
      load(is_gguf ? path : folder.path().string());
    } catch (const Error&) {
      return false;
    }
    return true;
  };
  REQUIRE(try_to_load(good));
  const std::size_t step = good.size() / 100 + 1;
  for (std::size_t at = 0; at < good.size(); at += step) {
    if (at + 3 < good.size()) REQUIRE_FALSE(try_to_load(good.substr(0, at)));
    std::string changed = good;
    changed[at] = static_cast<char>(changed[at] ^ 0x11);
    try_to_load(changed);
  }
}

}  // namespace spectx::test
