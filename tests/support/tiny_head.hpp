// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>

#include "spectx/types.hpp"

namespace spectx::test {

/// The EAGLE-3 tensors of a head with random weights, as the bytes of a safetensors file.
struct TinyHead {
  index_t hidden = 48;
  index_t query_heads = 4;
  index_t kv_heads = 2;
  index_t dim = 8;
  std::string feature_layers = "[0, 1]";
  std::string more_metadata{};  // ,"key":"value"

  std::string safetensors() const;
};

inline std::string TinyHead::safetensors() const {
  std::mt19937_64 engine(7);
  std::string header = R"({"__metadata__":{"feature_layers":")" + feature_layers +
                       R"(","num_attention_heads":")" + std::to_string(query_heads) +
                       R"(","num_key_value_heads":")" + std::to_string(kv_heads) +
                       R"(","head_dim":")" + std::to_string(dim) +
                       R"(","rope_theta":"10000","rms_norm_eps":"1e-05")" + more_metadata + "}";
  std::string data;
  const auto add = [&](const std::string& name, index_t rows, index_t cols) {
    header += ",\"" + name + R"(":{"dtype":"F32","shape":[)" +
              (rows > 0 ? std::to_string(rows) + "," : "") + std::to_string(cols) +
              R"(],"data_offsets":[)" + std::to_string(data.size()) + ",";
    for (index_t i = 0; i < (rows > 0 ? rows : 1) * cols; ++i) {
      const float noise = static_cast<float>(static_cast<double>(engine() >> 11) * 0x1p-53 - 0.5);
      const float value = rows > 0 ? noise : 1 + noise / 2;
      data.append(reinterpret_cast<const char*>(&value), 4);
    }
    header += std::to_string(data.size()) + "]}";
  };
  index_t features = 1;
  for (const char c : feature_layers) features += c == ',' ? 1 : 0;
  add("fc.weight", hidden, features * hidden);
  add("midlayer.input_layernorm.weight", 0, hidden);
  add("midlayer.hidden_norm.weight", 0, hidden);
  add("midlayer.self_attn.q_proj.weight", query_heads * dim, 2 * hidden);
  add("midlayer.self_attn.k_proj.weight", kv_heads * dim, 2 * hidden);
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t bytes = header.size();
  std::string length(8, '\0');
  std::memcpy(length.data(), &bytes, 8);
  return length + header + data;
}

}  // namespace spectx::test
