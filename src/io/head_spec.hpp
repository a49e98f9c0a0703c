// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spectx/io/gguf.hpp"
#include "spectx/io/safetensors.hpp"
#include "spectx/model_shape.hpp"
#include "spectx/selection_args.hpp"

namespace spectx::io {

/// What a head's config or metadata say, whoever trained it. What they leave open stays empty.
struct HeadSpec {
  index_t query_heads = 0;
  std::optional<index_t> kv_heads{};
  std::optional<index_t> k_dim{};
  std::optional<index_t> target_hidden{};
  std::optional<index_t> vocabulary{};
  /// The residual stream that enters these layers; empty: the family's default, which is one for
  /// all: of n layers 2, n / 2 and n - 3.
  std::vector<index_t> feature_layers{};
  Rope rope{};
  std::vector<float> rope_divisors{};
  float norm_eps = 1e-6F;
  GroupReduce reduce = GroupReduce::max;
  // Whether tensors that only some heads have are there; empty: the file's tensors decide.
  std::optional<bool> has_joint_norm{}, has_each_norm{}, has_fc_bias{}, has_qk_biases{};
  bool has_sizes_of_tensors = false;  // sizes that differ from the tensors' are an error
  bool prefers_own_embeddings = false;
  bool has_interleaved_rows = false;  // of q and k, for RoPE of neighbours
  std::string target{};               // the model that it was trained for, printable
  std::vector<std::string> notes{};   // what was assumed
};

/// Of config.json's text. Throws FileError, Unsupported for a kind of head that cannot be one.
HeadSpec parse_head_config(std::string_view text, std::string_view file);
/// Of a single file with the metadata of our trainer, or of our converter: a whole config.json as
/// `config`, over which the others go. Empty if it has neither.
std::optional<HeadSpec> head_spec_of(const Safetensors& file);
/// Of llama.cpp's form.
HeadSpec head_spec_of(const Gguf& file);

class JsonFields;
/// From rope_parameters, or rope_scaling and rope_theta. Adds to `notes` what it assumes.
Rope read_rope(const JsonFields& config, std::vector<std::string>& notes);

}  // namespace spectx::io
