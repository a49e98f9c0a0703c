// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "spectx/types.hpp"

namespace spectx {

/// Non-owning view of a device tensor. Row-major, strides in elements; the last dimension is dense.
/// Passed by value. A null `data` with rank 0 means "absent".
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  std::array<index_t, 4> shape{};
  std::array<index_t, 4> strides{};

  explicit operator bool() const noexcept { return data != nullptr; }
  index_t size() const noexcept {
    index_t n = rank == 0 ? 0 : 1;
    for (int i = 0; i < rank; ++i) n *= shape[static_cast<std::size_t>(i)];
    return n;
  }
  template <class T>
  T* as() const noexcept {
    return static_cast<T*>(data);
  }
};

/// [n]
inline TensorView vector_view(void* data, DType dtype, index_t n) noexcept {
  return {.data = data, .dtype = dtype, .rank = 1, .shape = {n}, .strides = {1}};
}

/// [rows, cols]; `row_stride` in elements, 0: cols.
inline TensorView matrix_view(void* data, DType dtype, index_t rows, index_t cols,
                              index_t row_stride = 0) noexcept {
  return {.data = data,
          .dtype = dtype,
          .rank = 2,
          .shape = {rows, cols},
          .strides = {row_stride == 0 ? cols : row_stride, 1}};
}

/// Columns [begin, begin + count) of a matrix.
inline TensorView columns(TensorView m, index_t begin, index_t count) noexcept {
  m.data = static_cast<std::byte*>(m.data) + begin * dtype_bytes(m.dtype);
  m.shape[1] = count;
  return m;
}

/// A vector seen as `count` equal rows.
inline TensorView repeated(TensorView v, index_t count) noexcept {
  return {.data = v.data,
          .dtype = v.dtype,
          .rank = 2,
          .shape = {count, v.shape[0]},
          .strides = {0, v.strides[0]}};
}

/// Rows [begin, begin + count) along the first dimension.
inline TensorView rows(TensorView t, index_t begin, index_t count) noexcept {
  t.data = static_cast<std::byte*>(t.data) + begin * t.strides[0] * dtype_bytes(t.dtype);
  t.shape[0] = count;
  return t;
}

/// [rows, heads * dim] seen as [rows, heads, dim].
inline TensorView split_heads(TensorView m, index_t heads, index_t dim) noexcept {
  return {.data = m.data,
          .dtype = m.dtype,
          .rank = 3,
          .shape = {m.shape[0], heads, dim},
          .strides = {m.strides[0], dim, 1}};
}

/// Non-owning array in device memory; only a backend may dereference it.
template <class T>
struct Array {
  T* data = nullptr;
  index_t size = 0;

  operator Array<const T>() const noexcept { return {data, size}; }
};

}  // namespace spectx
