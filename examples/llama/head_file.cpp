// SPDX-License-Identifier: Apache-2.0
#include "llama/head_file.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llama/carve.hpp"

namespace spectx::llama {
namespace {

constexpr index_t kMostCount = 1 << 16;  // products stay far from overflow

/// The metadata of one head file, checked as they are read.
class Metadata {
 public:
  explicit Metadata(const io::Safetensors& file) : file_(file) {}

  index_t count(const char* key) const {
    const auto value = parsed<index_t>(key);
    if (value < 1 || value > kMostCount) fail(key, "a whole number of at least 1");
    return value;
  }
  float positive(const char* key) const {
    const auto value = parsed<double>(key);
    if (!std::isfinite(value) || value <= 0) fail(key, "a positive number");
    return static_cast<float>(value);
  }
  /// "[1, 14, 26]"
  std::vector<index_t> ascending(const char* key) const {
    constexpr const char* kWanted = "an ascending list such as [1, 14, 26]";
    std::string text(at(key));
    std::erase(text, ' ');
    if (text.size() < 2 || text.front() != '[' || text.back() != ']') fail(key, kWanted);
    std::vector<index_t> values;
    const char* at = text.data() + 1;
    for (const char* const end = text.data() + text.size(); at != end; ++at) {
      index_t value = -1;
      const auto [next, error] = std::from_chars(at, end, value);
      const bool ascends = value >= 0 && (values.empty() || value > values.back());
      if (error != std::errc() || !ascends || value > kMostCount) fail(key, kWanted);
      if (*next != ',' && next + 1 != end) fail(key, kWanted);
      values.push_back(value);
      at = next;
    }
    return values;
  }

 private:
  std::string_view at(const char* key) const {
    const auto entry = file_.metadata().find(key);
    if (entry == file_.metadata().end()) {
      throw FileError(file_.path() + ": metadata " + key +
                      " is missing: this is not a retrieval head");
    }
    return entry->second;
  }
  template <class T>
  T parsed(const char* key) const {
    const std::string_view text = at(key);
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) fail(key, "a number");
    return value;
  }
  [[noreturn]] void fail(const char* key, const std::string& wanted) const {
    throw FileError(file_.path() + ": metadata " + key + " must be " + wanted);
  }

  const io::Safetensors& file_;
};

struct Slot {
  std::string name;
  TensorView HeadWeights::*to;
  index_t rows, cols;  // cols 0: a vector
};

std::string dimensions(const std::vector<index_t>& shape) {
  std::string text = "[";
  for (const index_t n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + "]";
}

std::vector<index_t> shape_of(const Slot& slot) {
  return slot.cols == 0 ? std::vector{slot.rows} : std::vector{slot.rows, slot.cols};
}

std::vector<Slot> slots_of(const io::Safetensors& file, const HeadWeights& head,
                           const ModelShape& target) {
  const index_t width = target.hidden;
  const auto features = static_cast<index_t>(head.feature_layers.size());
  const HeadShape& s = head.shape;
  std::vector<Slot> slots = {
      {"fc.weight", &HeadWeights::fc, width, features * width},
      {"midlayer.input_layernorm.weight", &HeadWeights::input_norm, width, 0},
      {"midlayer.hidden_norm.weight", &HeadWeights::hidden_norm, width, 0},
      {"midlayer.self_attn.q_proj.weight", &HeadWeights::q_proj, s.query_heads * s.k_dim,
       2 * width},
      {"midlayer.self_attn.k_proj.weight", &HeadWeights::k_proj, s.kv_heads * s.k_dim, 2 * width}};
  if (file.find("embed_tokens.weight") != nullptr) {
    slots.push_back(
        {"embed_tokens.weight", &HeadWeights::embeddings, target.vocabulary, target.hidden});
  }
  return slots;
}

/// One message that names everything.
void check_fits(const io::Safetensors& file, const HeadWeights& head,
                const std::vector<Slot>& slots, const ModelShape& target) {
  std::string misfits;
  const auto add = [&](const std::string& what) {
    misfits += (misfits.empty() ? "" : "; ") + what;
  };
  for (const Slot& slot : slots) {
    const auto& shape = file.at(slot.name).shape;
    if (shape == shape_of(slot)) continue;
    add(slot.name + " is " + dimensions(shape) + ", needed " + dimensions(shape_of(slot)));
  }
  for (const index_t layer : head.feature_layers) {
    if (layer < target.layers) continue;
    add("feature layer " + std::to_string(layer - 1) + ", but of the model's " +
        std::to_string(target.layers) + " layers " + std::to_string(target.layers - 2) +
        " is the last that can be tapped");
  }
  if (head.shape.query_heads % head.shape.kv_heads != 0) {
    add(std::to_string(head.shape.query_heads) + " query heads are no multiple of " +
        std::to_string(head.shape.kv_heads) + " KV heads");
  }
  if (head.shape.k_dim % 2 != 0) add("head_dim is odd");
  if (!misfits.empty()) {
    throw InvalidArgument(file.path() + ": this head does not fit the model (hidden size " +
                          std::to_string(target.hidden) + "): " + misfits);
  }
}

void read(Backend& backend, const io::Safetensors& file, const Slot& slot, TensorView to,
          std::vector<std::byte>& staging, StreamView stream) {
  const bool is_vector = slot.cols == 0;
  const index_t num_rows = is_vector ? 1 : slot.rows;
  const index_t cols = is_vector ? slot.rows : slot.cols;
  constexpr index_t kStagingBytes = index_t{1} << 20;
  const index_t row_bytes = cols * dtype_bytes(to.dtype);
  const index_t block = std::clamp<index_t>(kStagingBytes / row_bytes, 1, num_rows);
  staging.resize(static_cast<std::size_t>(block * row_bytes));
  for (index_t first = 0; first < num_rows; first += block) {
    const index_t count = std::min(block, num_rows - first);
    file.read_rows(file.at(slot.name), first, matrix_view(staging.data(), to.dtype, count, cols));
    backend.copy(to.as<std::byte>() + first * row_bytes, staging.data(), count * row_bytes, stream);
  }
}

/// Cuts every tensor out of the memory at `base`; gives the bytes that they take.
index_t place(std::byte* base, const std::vector<Slot>& slots, DType dtype, HeadWeights& head) {
  Carver carver(base);
  for (const Slot& slot : slots) {
    head.*slot.to = slot.cols == 0 ? carver.vector(DType::f32, slot.rows)
                                   : carver.matrix(dtype, slot.rows, slot.cols);
  }
  return carver.bytes();
}

}  // namespace

LoadedHead load_head(Backend& backend, const io::Safetensors& file, const ModelShape& target,
                     TensorView embeddings, DType dtype, StreamView stream) {
  const Metadata metadata(file);
  LoadedHead head;
  HeadWeights& w = head.weights;
  w.shape = {.query_heads = metadata.count("num_attention_heads"),
             .kv_heads = metadata.count("num_key_value_heads"),
             .k_dim = metadata.count("head_dim")};
  w.rope = {.theta = metadata.positive("rope_theta")};
  w.norm_eps = metadata.positive("rms_norm_eps");
  w.feature_layers = metadata.ascending("feature_layers");
  for (index_t& layer : w.feature_layers) ++layer;  // after a layer is before the next one
  w.embeddings = embeddings;

  const std::vector<Slot> slots = slots_of(file, w, target);
  check_fits(file, w, slots, target);
  head.storage = Buffer(backend.memories().device, place(nullptr, slots, dtype, w));
  place(head.storage.data(), slots, dtype, w);
  std::vector<std::byte> staging;
  for (const Slot& slot : slots) {
    read(backend, file, slot, w.*slot.to, staging, stream);
  }
  backend.synchronize(stream);
  return head;
}

}  // namespace spectx::llama
