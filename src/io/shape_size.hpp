// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

#include "spectx/types.hpp"

namespace spectx::io {

inline constexpr auto kMaxIndex = static_cast<std::uint64_t>(std::numeric_limits<index_t>::max());

/// False when the product does not fit; `product` is then worthless.
inline bool multiply(std::uint64_t a, std::uint64_t b, std::uint64_t& product) noexcept {
  product = a * b;
  return a == 0 || product / a == b;
}

/// The size of a shape from a file.
struct ShapeSize {
  bool fits = true;            // the product of any of its dimensions fits in index_t
  bool is_empty = false;       // a dimension is 0
  std::uint64_t elements = 1;  // with dimensions of 0 counted as 1
};

/// Dimensions are not negative. One of 0 does not hide that the others overflow: rows() multiplies
/// them.
inline ShapeSize shape_size(std::span<const index_t> shape) noexcept {
  ShapeSize size;
  for (const index_t extent : shape) {
    const auto factor = static_cast<std::uint64_t>(std::max<index_t>(extent, 1));
    size.is_empty = size.is_empty || extent == 0;
    size.fits = size.fits && multiply(size.elements, factor, size.elements);
  }
  size.fits = size.fits && size.elements <= kMaxIndex;
  return size;
}

}  // namespace spectx::io
