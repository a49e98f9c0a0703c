// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "spectx/error.hpp"
#include "spectx/types.hpp"

namespace spectx {

enum class RopeScaling : std::uint8_t { none, linear, llama3, yarn };

/// Rotary position embedding, half-split (NeoX) form. Field names follow transformers'
/// rope_scaling.
struct Rope {
  float theta = 1e4F;
  RopeScaling scaling = RopeScaling::none;
  float factor = 1;
  float original_length = 0;  // tokens; llama3 and yarn
  float low_freq_factor = 1;  // llama3
  float high_freq_factor = 4;
  float beta_fast = 32;  // yarn
  float beta_slow = 1;
  float attention_factor = 0;  // yarn: multiplies cos and sin; 0: 0.1 ln(factor) + 1
};

/// How a layer attends. Only `full` layers have a cache in the pool; the others stay with the host
/// engine and belong to no group.
enum class AttentionKind : std::uint8_t { full, sliding, none, mla };

/// The one source of every size.
struct ModelShape {
  index_t layers = 0;
  index_t query_heads = 0;
  index_t kv_heads = 0;  // query_heads: MHA; 1: MQA
  index_t k_dim = 0;     // per head
  index_t v_dim = 0;     // per head
  index_t hidden = 0;
  index_t vocabulary = 0;
  DType dtype = DType::bf16;  // of the cached rows
  Rope rope;
  std::vector<AttentionKind> attention;  // per layer; empty: all full

  index_t group_size() const noexcept { return query_heads / kv_heads; }
  /// One token's K and V of one KV head in one layer.
  index_t row_bytes() const noexcept { return (k_dim + v_dim) * dtype_bytes(dtype); }
  AttentionKind kind(index_t layer) const noexcept {
    return attention.empty() ? AttentionKind::full : attention[static_cast<std::size_t>(layer)];
  }
  /// Layers whose cache the pool holds.
  index_t cached_layers() const noexcept {
    index_t n = 0;
    for (index_t l = 0; l < layers; ++l) n += kind(l) == AttentionKind::full ? 1 : 0;
    return n;
  }
};

/// Throws InvalidArgument that names the first field that is wrong, Unsupported for MLA.
inline void check_shape(const ModelShape& s) {
  expects(s.layers > 0, "ModelShape: layers must be positive");
  expects(s.kv_heads > 0, "ModelShape: kv_heads must be positive");
  expects(s.query_heads > 0 && s.query_heads % s.kv_heads == 0,
          "ModelShape: query_heads must be a positive multiple of kv_heads");
  expects(s.k_dim > 0 && s.k_dim % 2 == 0, "ModelShape: k_dim must be positive and even");
  expects(s.v_dim > 0, "ModelShape: v_dim must be positive");
  expects(s.hidden > 0, "ModelShape: hidden must be positive");
  expects(s.vocabulary > 0, "ModelShape: vocabulary must be positive");
  expects(s.dtype == DType::f32 || s.dtype == DType::f16 || s.dtype == DType::bf16,
          "ModelShape: dtype must be f32, f16 or bf16");
  expects(s.attention.empty() || static_cast<index_t>(s.attention.size()) == s.layers,
          "ModelShape: attention must be empty or have one entry per layer");
  for (const AttentionKind kind : s.attention) {
    if (kind == AttentionKind::mla) throw Unsupported("ModelShape: MLA layers are not supported");
  }
  expects(s.cached_layers() > 0, "ModelShape: no layer has full attention");
}

/// The largest operations of a loop.
struct ScratchShape {
  index_t requests = 1;     // times the rows of each that select, if more than one
  index_t max_length = 0;   // tokens of a request
  index_t step_rows = 1;    // of a batch
  index_t query_heads = 1;  // of the target or its retrieval head
  index_t head_dim = 1;
  bool has_half_rows = true;  // f16 or bf16
};

}  // namespace spectx
