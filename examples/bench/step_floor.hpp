// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "spectx/backend.hpp"

namespace spectx::io {
struct LoadedHead;
}
namespace spectx::llama {
class LlamaWeights;
}

namespace spectx::bench {

/// What a term of a step has to move and to compute, however well it does so.
struct Work {
  index_t bytes = 0;  // by bytes_moved()
  index_t flops = 0;  // of products and attention
};

enum class Term : int {
  products,  // of the layers
  logits,    // the product
  attend,
  head,   // its products, keys, scores, top-k and features
  slots,  // the comparison of the selection with the slot map
  rows,   // norms, RoPE, SwiGLU, new rows
  tokens  // embeddings and the likeliest tokens
};
inline constexpr int kNumTerms = 7;
const char* term_name(int term) noexcept;

using StepFloor = std::array<Work, kNumTerms>;

/// A step of equal decode rows.
struct FloorCase {
  index_t requests = 1;
  index_t length = 0;    // tokens of a request before the step
  SelectionConfig rule;  // of the head, if there is one
  index_t slots = 0;     // of a request's slot map that the step reads; 0: none
  DType activations = DType::bf16;
  DType rows = DType::bf16;  // cached
};
/// `head` null: full attention.
StepFloor step_floor(const llama::LlamaWeights& weights, const io::LoadedHead* head,
                     const FloorCase& c);

/// 1e9 bytes a second that a copy inside the device reads and writes. Waits.
double measure_copy_gb_s(Backend& backend, index_t most_bytes, StreamView stream);

}  // namespace spectx::bench
