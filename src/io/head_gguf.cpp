// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cmath>

#include "file_error.hpp"
#include "head_spec.hpp"
#include "spectx/io/gguf_rope.hpp"

namespace spectx::io {
namespace {

const std::string kPrefix = "eagle3.";

std::optional<index_t> count(const Gguf& file, const char* key) {
  if (!file.has(kPrefix + key)) return std::nullopt;
  const auto value = file.get<std::int64_t>(kPrefix + key);
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  if (value < 1 || value > kMost) {
    fail(file.path(), "", kPrefix + key + " must be a whole number of 1 to 2^31");
  }
  return value;
}

/// Ids of layers whose input is tapped, under the name of today or of the first version.
std::vector<index_t> feature_layers(const Gguf& file) {
  for (const char* key : {"target_layers", "extract_layers"}) {
    if (!file.has(kPrefix + key)) continue;
    std::vector<index_t> layers;
    for (const std::int64_t id : file.get<std::vector<std::int64_t>>(kPrefix + key)) {
      constexpr std::int64_t kMost = 1 << 20;
      if (id < 0 || id > kMost || (!layers.empty() && id <= layers.back())) {
        fail(file.path(), "", kPrefix + key + " must ascend");
      }
      layers.push_back(id);
    }
    if (layers.empty()) fail(file.path(), "", kPrefix + key + " is empty");
    return layers;
  }
  return {};
}

}  // namespace

HeadSpec head_spec_of(const Gguf& file) {
  const auto architecture = file.get_or<std::string>("general.architecture", "");
  if (architecture != "eagle3") {
    throw Unsupported(printable(file.path()) + ": architecture " + in_quotes(architecture) +
                      " is no retrieval head, which is \"eagle3\"");
  }
  // What llama.cpp's converter has never written, so that no one knows the order of its rows.
  for (const char* name : {"blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight",
                           "blk.0.attn_q.bias", "blk.0.attn_k.bias", "fc.bias"}) {
    if (file.find(name) != nullptr) {
      throw Unsupported(printable(file.path()) + ": tensor " + name +
                        " is not supported in a GGUF file: convert the head's folder instead");
    }
  }
  HeadSpec spec;
  const auto heads = count(file, "attention.head_count");
  if (!heads) fail(file.path(), "", kPrefix + "attention.head_count is missing");
  spec.query_heads = *heads;
  spec.kv_heads = count(file, "attention.head_count_kv");
  spec.k_dim = count(file, "attention.key_length");
  spec.target_hidden = count(file, "target_hidden_size");
  spec.vocabulary = count(file, "vocab_size");
  spec.feature_layers = feature_layers(file);
  const auto eps = file.get<float>(kPrefix + "attention.layer_norm_rms_epsilon");
  if (!std::isfinite(eps) || eps <= 0) {
    fail(file.path(), "", kPrefix + "attention.layer_norm_rms_epsilon must be a positive number");
  }
  spec.norm_eps = eps;
  spec.rope = read_rope(file, "eagle3");
  if (spec.rope.theta <= 1) fail(file.path(), "", kPrefix + "rope.freq_base must be above 1");
  if (!file.has(kPrefix + "rope.freq_base")) {
    spec.notes.emplace_back("no rope.freq_base: taken as 10000");
  }
  if (const GgufTensor* const divisors = file.find("rope_freqs.weight")) {
    constexpr index_t kMost = 1 << 16;
    if (divisors->cols() > kMost) fail(file.path(), "", "rope_freqs.weight is too large");
    spec.rope_divisors = read_rope_divisors(file, 2 * divisors->cols());
  }
  if (file.has(kPrefix + "norm_before_fc")) {
    spec.has_joint_norm = file.get<bool>(kPrefix + "norm_before_fc");
  }
  spec.has_interleaved_rows = true;
  return spec;
}

}  // namespace spectx::io
