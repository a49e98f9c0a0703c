// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/types.hpp"

namespace spectx {

/// How one token's rows of one KV head lie in the host tier, all layers of a group: one contiguous
/// run. Of the rows' own type: [layer][K | V]. Of a smaller type (f8_e4m3, i8), in whole units of
/// 16 bytes:
///
///   [layer][scale of K, scale of V: f32] [layer][K | V]
///
/// A stored number times its part's scale is the element, rounded to the rows' type. With `largest`
/// the largest magnitude of a part (K or V of one layer):
/// - f8_e4m3: the scale is the power of two that brings `largest` into (224, 448]. An element x is
///   off by 2^-4 |x| at most, or by 2^-17 `largest` where that is more.
/// - i8: the scale is largest / 127, cut to 17 significant bits. An element is off by
///   `largest` / 254 at most, and by the rounding to the rows' type.
/// Scales are 2^-126 at least. A part with an infinity or a NaN comes back as NaN. What comes back
/// and is stored again comes back as it was.
struct HostRun {
  index_t row_bytes = 0;  // one layer's numbers
  index_t first_row = 0;  // bytes before them: scales
  index_t bytes = 0;      // from one run to the next
  DType dtype = DType::bf16;
  bool is_lossy = false;

  /// Bytes that `layers` layers of a run hold.
  constexpr index_t bytes_of(index_t layers) const noexcept {
    return layers * (row_bytes + (is_lossy ? kScaleBytes : 0));
  }
  static constexpr index_t kScaleBytes = 8;  // of one layer: K's and V's
};

/// @param elements  of one row, K and V
constexpr HostRun make_host_run(DType rows, DType host, index_t elements,
                                index_t group_layers) noexcept {
  constexpr index_t kUnit = 16;
  const auto whole = [](index_t bytes) { return (bytes + kUnit - 1) / kUnit * kUnit; };
  const bool is_lossy = host != rows;
  const index_t row_bytes = elements * dtype_bytes(host);
  const index_t first_row = is_lossy ? whole(group_layers * HostRun::kScaleBytes) : 0;
  const index_t end = first_row + group_layers * row_bytes;
  return {row_bytes, first_row, is_lossy ? whole(end) : end, host, is_lossy};
}

/// Whether the host tier of rows of type `rows` can be of type `host`.
constexpr bool is_host_dtype(DType rows, DType host) noexcept {
  return host == rows || host == DType::f8_e4m3 || host == DType::i8;
}

}  // namespace spectx
