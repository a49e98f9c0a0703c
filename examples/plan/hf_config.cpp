// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "plan/model_source.hpp"
#include "spectx/io/mapped_file.hpp"

namespace spectx::plan {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxFileBytes = 16 << 20;

/// The fields of a config.json, with errors that name the file and the field.
class Fields {
 public:
  explicit Fields(const std::string& path) : path_(path) {
    const io::MappedFile file(path);
    const std::span<const std::byte> bytes = file.bytes();
    if (bytes.size() > kMaxFileBytes) throw FileError(path + ": too large for a config.json");
    const char* const text = reinterpret_cast<const char*>(bytes.data());
    fields_ = json::parse(text, text + bytes.size(), nullptr, /*allow_exceptions=*/false);
    if (fields_.is_discarded()) throw FileError(path + ": not JSON");
    if (!fields_.is_object()) throw FileError(path + ": not a JSON object");
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw FileError(path_ + ": " + reason);
  }
  bool has(const char* name) const { return fields_.contains(name) && !fields_[name].is_null(); }
  const json& at(const char* name) const {
    if (!has(name)) fail(std::string(name) + " is missing");
    return fields_[name];
  }
  index_t count(const char* name) const {
    const json& value = at(name);
    constexpr std::uint64_t kMax = std::uint64_t{1} << 40;
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kMax) {
      fail(std::string(name) + " must be a whole number that is not negative");
    }
    return value.get<index_t>();
  }
  index_t count_or(const char* name, index_t otherwise) const {
    return has(name) ? count(name) : otherwise;
  }
  bool flag(const char* name) const {
    if (!has(name)) return false;
    if (!at(name).is_boolean()) fail(std::string(name) + " must be true or false");
    return at(name).get<bool>();
  }
  std::string text_or(const char* name, const char* otherwise) const {
    if (!has(name)) return otherwise;
    if (!at(name).is_string()) fail(std::string(name) + " must be a string");
    return at(name).get<std::string>();
  }

 private:
  std::string path_;
  json fields_;
};

DType row_dtype(const Fields& fields) {
  const std::string name =
      fields.text_or("dtype", fields.text_or("torch_dtype", "bfloat16").c_str());
  if (name == "float32") return DType::f32;
  if (name == "float16") return DType::f16;
  if (name == "bfloat16") return DType::bf16;
  throw Unsupported("dtype " + name + " of the model is none of float32, float16 and bfloat16");
}

/// Which layers attend to a window: by `layer_types`, or by the older switches of each family.
void read_attention(const Fields& fields, const std::string& family, ModelSource& source) {
  const index_t layers = source.shape.layers;
  std::vector<AttentionKind> kinds;
  if (fields.has("layer_types")) {
    for (const json& type : fields.at("layer_types")) {
      const bool is_full = type == "full_attention";
      if (!is_full && type != "sliding_attention") {
        fields.fail("layer_types has something other than full_attention and sliding_attention");
      }
      kinds.push_back(is_full ? AttentionKind::full : AttentionKind::sliding);
    }
    if (static_cast<index_t>(kinds.size()) != layers) {
      fields.fail("layer_types must have num_hidden_layers entries");
    }
  } else if (fields.has("sliding_window") &&
             (family == "mistral" || fields.flag("use_sliding_window"))) {
    const index_t first = family == "mistral" ? 0 : fields.count_or("max_window_layers", 0);
    for (index_t l = 0; l < layers; ++l) {
      kinds.push_back(l < first ? AttentionKind::full : AttentionKind::sliding);
    }
  }
  const auto sliding = std::count(kinds.begin(), kinds.end(), AttentionKind::sliding);
  if (sliding == 0) return;
  if (sliding == layers) {
    fields.fail("every layer attends to a sliding window only, so there is no cache to offload");
  }
  source.notes.push_back(std::to_string(sliding) +
                         " layers with a sliding window stay with the engine and are not counted");
  source.shape.attention = std::move(kinds);
}

void note_rope_scaling(const Fields& fields, ModelSource& source) {
  if (!fields.has("rope_scaling")) return;
  const json& scaling = fields.at("rope_scaling");
  if (!scaling.is_object()) fields.fail("rope_scaling must be an object");
  const char* key = scaling.contains("rope_type") ? "rope_type" : "type";
  std::ostringstream note;
  note << "RoPE is scaled: " << (scaling.contains(key) ? scaling[key] : json("unknown")).dump();
  if (scaling.contains("factor")) note << ", factor " << scaling["factor"].dump();
  source.notes.push_back(note.str());
}

}  // namespace

ModelSource read_hf_config(const std::string& path) {
  const Fields fields(path);
  const std::string family = fields.text_or("model_type", "");
  if (family != "llama" && family != "mistral" && family != "qwen2" && family != "qwen3") {
    throw Unsupported(
        path + ": model_type \"" + family +
        "\" is none of llama, mistral, qwen2 and qwen3; give the dimensions as flags");
  }
  ModelSource source;
  source.name = family;
  ModelShape& shape = source.shape;
  shape.layers = fields.count("num_hidden_layers");
  shape.query_heads = fields.count("num_attention_heads");
  shape.kv_heads = fields.count_or("num_key_value_heads", shape.query_heads);
  shape.hidden = fields.count("hidden_size");
  shape.vocabulary = fields.count("vocab_size");
  if (shape.layers == 0 || shape.layers > 1 << 16) {
    fields.fail("num_hidden_layers must be in 1 .. 65536");
  }
  if (shape.query_heads == 0) fields.fail("num_attention_heads must be positive");
  if (!fields.has("head_dim") && shape.hidden % shape.query_heads != 0) {
    fields.fail("head_dim is missing and hidden_size is no multiple of num_attention_heads");
  }
  shape.k_dim = shape.v_dim = fields.count_or("head_dim", shape.hidden / shape.query_heads);
  shape.dtype = row_dtype(fields);
  read_attention(fields, family, source);
  note_rope_scaling(fields, source);
  source.context_length = fields.count_or("max_position_embeddings", 0);
  source.feed_forward = fields.count("intermediate_size");
  source.has_tied_embeddings = fields.flag("tie_word_embeddings");
  source.weight_bytes = estimate_weight_bytes(
      shape,
      {.feed_forward = source.feed_forward, .has_tied_embeddings = source.has_tied_embeddings});
  source.weight_origin = "estimated from the dimensions, unquantised, without activations";
  return source;
}

}  // namespace spectx::plan
