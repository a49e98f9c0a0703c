// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/pool_layout.hpp"
#include "spectx/view.hpp"

namespace spectx::llama {

/// Cuts tensors out of one allocation. Over a null base it only counts.
class Carver {
 public:
  explicit Carver(std::byte* base) noexcept : base_(base) {}

  TensorView vector(DType dtype, index_t n) { return vector_view(take(dtype, n), dtype, n); }
  TensorView matrix(DType dtype, index_t rows, index_t cols) {
    return matrix_view(take(dtype, rows * cols), dtype, rows, cols);
  }
  index_t bytes() const noexcept { return bytes_; }

 private:
  std::byte* take(DType dtype, index_t elements) {
    std::byte* at = base_ == nullptr ? nullptr : base_ + bytes_;
    bytes_ += PoolLayout::aligned(elements * dtype_bytes(dtype));
    return at;
  }

  std::byte* base_;
  index_t bytes_ = 0;
};

}  // namespace spectx::llama
