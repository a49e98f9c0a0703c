// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "spectx/error.hpp"
#include "spectx/view.hpp"

namespace spectx::test {

/// Decodes the first and last rows of a tensor as each type that rows are read as.
template <class File, class Tensor>
void read_some_rows(const File& file, const Tensor& tensor) {
  constexpr index_t kMaxRows = 3;
  const index_t rows = std::min(tensor.rows(), kMaxRows);
  // Without bytes a shape may claim any number of columns: nothing is there to be decoded.
  const index_t cols = tensor.cols();
  const auto elements = static_cast<std::size_t>(tensor.bytes.empty() ? 0 : rows * cols);
  std::vector<float> out(elements);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const TensorView view = matrix_view(out.data(), dtype, out.empty() ? 0 : rows, cols);
    try {
      file.read_rows(tensor, 0, view);
      file.read_rows(tensor, tensor.rows() - view.shape[0], view);
    } catch (const Unsupported&) {
      return;
    }
  }
}

}  // namespace spectx::test
