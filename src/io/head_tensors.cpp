// SPDX-License-Identifier: Apache-2.0
#include "head_tensors.hpp"

#include <array>
#include <filesystem>
#include <fstream>

#include "file_error.hpp"

namespace spectx::io {
namespace {

namespace fs = std::filesystem;

/// The first bytes of a file; fewer if it is shorter.
std::string beginning(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path, "", "cannot be opened");
  std::array<char, 4> bytes{};
  file.read(bytes.data(), bytes.size());
  return {bytes.data(), static_cast<std::size_t>(file.gcount())};
}

/// Zip archives, and pickles of a protocol of today.
bool is_pickle(const std::string& begin) {
  return begin.rfind("PK", 0) == 0 || begin.rfind("\x80", 0) == 0;
}

HeadSpec read_config_file(const fs::path& path) {
  const MappedFile file(path.string());
  const auto bytes = file.bytes();
  return parse_head_config({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                           path.string());
}

}  // namespace

HeadTensors::HeadTensors(const std::string& path) : path_(path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored) || fs::path(path).extension() == ".json") {
    open_safetensors(path);
    return;
  }
  const std::string begin = beginning(path);
  if (begin == "GGUF") {
    gguf_.emplace(path);
    spec_ = head_spec_of(*gguf_);
    name_gguf();
  } else if (is_pickle(begin)) {
    fail(path, "", "a PyTorch pickle is not read here: convert it with spectx-convert-head");
  } else {
    open_safetensors(path);
  }
}

void HeadTensors::open_safetensors(const std::string& path) {
  std::error_code ignored;
  const bool is_file = !fs::is_directory(path, ignored) && fs::path(path).extension() != ".json";
  const fs::path folder =
      fs::is_directory(path, ignored) ? fs::path(path) : fs::path(path).parent_path();
  const auto is_there = [&](const char* name) { return fs::exists(folder / name, ignored); };
  if (!is_file && !is_there("model.safetensors") && !is_there("model.safetensors.index.json")) {
    fail(folder.string(), "",
         is_there("pytorch_model.bin")
             ? "has pytorch_model.bin only: convert it with spectx-convert-head"
             : "has no model.safetensors");
  }
  safetensors_.emplace(is_file ? path : folder.string());
  if (auto spec = head_spec_of(*safetensors_)) {
    spec_ = std::move(*spec);
  } else if (is_there("config.json")) {
    spec_ = read_config_file(folder / "config.json");
  } else {
    fail(path, "", "metadata of a retrieval head are missing, and so is a config.json beside it");
  }
  name_safetensors();
}

void HeadTensors::name_safetensors() {
  for (const char* outer : {"", "model."}) {
    for (const char* layer : {"midlayer.", "layers.0."}) {
      const std::string inner = std::string(outer) + layer;
      if (!has(inner + "self_attn.q_proj.weight")) continue;
      const auto of_all = [&](const char* name) {
        return has(std::string(outer) + name) ? std::string(outer) + name : std::string(name);
      };
      names_ = {.fc = of_all("fc.weight"),
                .input_norm = inner + "input_layernorm.weight",
                .hidden_norm = inner + "hidden_norm.weight",
                .q_proj = inner + "self_attn.q_proj.weight",
                .k_proj = inner + "self_attn.k_proj.weight",
                .fc_bias = of_all("fc.bias"),
                .q_bias = inner + "self_attn.q_proj.bias",
                .k_bias = inner + "self_attn.k_proj.bias",
                .q_norm = inner + "self_attn.q_norm.weight",
                .k_norm = inner + "self_attn.k_norm.weight",
                .embeddings = of_all("embed_tokens.weight"),
                .joint_norm = of_all("input_norm.weight"),
                .each_norm_begin = has("model.fc_norm.0.weight") ? "model.fc_norm." : "fc_norm.",
                .each_norm_end = ".weight"};
      return;
    }
  }
  for (const auto& [name, tensor] : safetensors_->tensors()) {
    if (name.find("kv_a_proj") != std::string::npos ||
        name.find("kv_b_proj") != std::string::npos) {
      throw Unsupported(printable(path_) + ": tensor " + in_quotes(name) +
                        ": a head with latent attention (MLA) cannot be a retrieval head");
    }
  }
  fail(path_, "",
       "neither midlayer.self_attn.q_proj.weight nor layers.0.self_attn.q_proj.weight is there: "
       "this is not an EAGLE-3 head");
}

void HeadTensors::name_gguf() {
  names_ = {.fc = "fc.weight",
            .input_norm = "blk.0.attn_norm.weight",
            .hidden_norm = has("blk.0.hidden_norm.weight") ? "blk.0.hidden_norm.weight"  // at first
                                                           : "blk.0.attn_norm_2.weight",
            .q_proj = "blk.0.attn_q.weight",
            .k_proj = "blk.0.attn_k.weight",
            .fc_bias = {},
            .q_bias = {},
            .k_bias = {},
            .q_norm = {},
            .k_norm = {},
            .embeddings = "token_embd.weight",
            .joint_norm = "enc.output_norm.weight",
            .each_norm_begin = {},
            .each_norm_end = {}};
  if (!has(names_.q_proj)) fail(path_, "", "tensor " + names_.q_proj + " is missing");
}

const std::vector<index_t>* HeadTensors::shape(const std::string& name) const {
  if (gguf_) {
    const GgufTensor* const tensor = gguf_->find(name);
    return tensor == nullptr ? nullptr : &tensor->shape;
  }
  const SafetensorsTensor* const tensor = safetensors_->find(name);
  return tensor == nullptr ? nullptr : &tensor->shape;
}

void HeadTensors::read_rows(const std::string& name, index_t first_row, TensorView out) const {
  if (gguf_) {
    gguf_->read_rows(gguf_->at(name), first_row, out);
  } else {
    safetensors_->read_rows(safetensors_->at(name), first_row, out);
  }
}

}  // namespace spectx::io
