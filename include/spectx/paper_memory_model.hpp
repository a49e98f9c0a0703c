// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <span>

#include "spectx/error.hpp"
#include "spectx/types.hpp"

namespace spectx {

/// SpeContext (arXiv 2512.00722) section 6 in exact integers: equations 6-8 and both algorithms.
/// It counts activations as 30 % of the models, one more layer of K and V for the retrieval head
/// and `group_size` more for a repeat_kv; all requests have the same length S.
struct PaperMemoryModel {
  index_t memory_bytes = 0;   // Mem_GPU
  index_t model_bytes = 0;    // M_O
  index_t draft_bytes = 0;    // M_D
  index_t layers = 0;         // L, those with a cache
  index_t kv_heads = 0;       // H
  index_t head_dim = 0;       // D
  index_t group_size = 1;     // alpha: query heads of a KV head
  index_t budget = 2048;      // B, tokens
  index_t element_bytes = 2;  // the paper: FP16

  /// Throws InvalidArgument unless the model can be asked about so many requests of such a length:
  /// every field in its range and every product inside 64 bits.
  void check(index_t requests, index_t length) const {
    constexpr index_t kMaxBytes = index_t{1} << 57;
    expects(memory_bytes > 0 && memory_bytes <= kMaxBytes,
            "PaperMemoryModel: memory_bytes must be in 1 .. 2^57");
    expects(model_bytes >= 0 && draft_bytes >= 0 && model_bytes <= kMaxBytes &&
                draft_bytes <= kMaxBytes,
            "PaperMemoryModel: model_bytes and draft_bytes must be in 0 .. 2^57");
    for (const index_t n : {layers, kv_heads, head_dim, group_size, element_bytes, requests}) {
      expects(n > 0 && n <= index_t{1} << 20,
              "PaperMemoryModel: layers, heads, dims and requests must be in 1 .. 2^20");
    }
    expects(budget > 0 && length >= 0, "PaperMemoryModel: budget and length must be positive");
    const auto real = [](index_t n) { return static_cast<double>(n); };
    const double layer = real(2 * element_bytes) * real(requests) * real(kv_heads) * real(head_dim);
    const double rows = real(layers + 1 + group_size) * (real(length) + 10 * real(budget) + 10);
    expects(layer * rows < 0x1p62, "PaperMemoryModel: the sizes do not fit in 64 bits");
  }

  /// Equation 6: everything on the device. @param requests  R  @param length  S
  index_t all_bytes(index_t requests, index_t length) const {
    return part_bytes(requests, length, 0);
  }
  /// Equation 7: the last `host_layers` layers keep `budget` tokens on the device.
  index_t part_bytes(index_t requests, index_t length, index_t host_layers) const {
    return ceil_tenths(13 * (model_bytes + draft_bytes)) +
           token_bytes(requests) *
               ((layers - host_layers + 1 + group_size) * length + host_layers * budget);
  }
  /// Equation 8: the most layers whose cache can stay on the device; -1 if not even none.
  index_t device_layers(index_t requests, index_t length) const {
    for (index_t host = 0; host <= layers; ++host) {
      if (part_bytes(requests, length, host) <= memory_bytes) return layers - host;
    }
    return -1;
  }

  /// S_0 .. S_L of the threshold algorithm: S_i is the largest length that `i` layers on the host
  /// allow; 0 where none does. As printed, the numerator takes i B R H D bytes for the budgets of
  /// the offloaded layers; `is_corrected` takes the 4 i B R H D that equation 7 asks.
  /// @param out  [layers + 1], written
  void thresholds(index_t requests, bool is_corrected, std::span<index_t> out) const {
    const index_t element = requests * kv_heads * head_dim;
    const index_t budget_bytes = (is_corrected ? token_bytes(requests) : element) * budget;
    for (index_t i = 0; i <= layers; ++i) {
      const index_t tenths =
          10 * memory_bytes - 13 * (model_bytes + draft_bytes) - 10 * i * budget_bytes;
      const index_t a_token = 10 * token_bytes(requests) * (layers + 1 + group_size - i);
      out[static_cast<std::size_t>(i)] = std::max<index_t>(0, tenths) / a_token;
    }
  }

  /// The run-time algorithm: layers on the host at `length`; they leave from the last to the first.
  /// @param thresholds  S_0 .. S_L
  static index_t layers_on_host(std::span<const index_t> thresholds, index_t length) {
    index_t host = 0;
    const auto all = static_cast<index_t>(thresholds.size()) - 1;
    while (host < all && length >= thresholds[static_cast<std::size_t>(host)]) ++host;
    return host;
  }

 private:
  /// K and V of one token of every request in one layer: 4 R H D in FP16.
  index_t token_bytes(index_t requests) const {
    return 2 * element_bytes * requests * kv_heads * head_dim;
  }
  static index_t ceil_tenths(index_t tenths) { return (tenths + 9) / 10; }
};

}  // namespace spectx
