// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "head_spec.hpp"

namespace spectx::io {

/// What the tensors of a head are called in its file. Of those that only some heads have: whether
/// they are there or not.
struct HeadNames {
  std::string fc, input_norm, hidden_norm, q_proj, k_proj;
  std::string fc_bias, q_bias, k_bias, q_norm, k_norm, embeddings;
  std::string joint_norm;
  std::string each_norm_begin, each_norm_end;  // around the feature's number
};

/// A head's file or folder, opened: safetensors with a config, a single safetensors file, or GGUF.
class HeadTensors {
 public:
  /// Throws FileError for what is no head or cannot be read, Unsupported for another kind of head.
  explicit HeadTensors(const std::string& path);

  const std::string& path() const noexcept { return path_; }
  const HeadSpec& spec() const noexcept { return spec_; }
  const HeadNames& names() const noexcept { return names_; }
  /// Null when there is no tensor of that name.
  const std::vector<index_t>* shape(const std::string& name) const;
  bool has(const std::string& name) const { return shape(name) != nullptr; }
  void read_rows(const std::string& name, index_t first_row, TensorView out) const;

 private:
  void open_safetensors(const std::string& path);
  void name_safetensors();
  void name_gguf();

  std::string path_;
  std::optional<Safetensors> safetensors_;
  std::optional<Gguf> gguf_;
  HeadSpec spec_;
  HeadNames names_;
};

}  // namespace spectx::io
