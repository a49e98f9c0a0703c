// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/convert.cuh"
#include "spectx/backend.hpp"
#include "spectx/dispatch.hpp"

// What kernels see of the arguments of an operation: plain pointers and strides, by value.
namespace spectx::cu {

template <class T>
struct DeviceType {
  using type = T;
};
template <>
struct DeviceType<half_t> {
  using type = __half;
};
template <>
struct DeviceType<bf16_t> {
  using type = __nv_bfloat16;
};
/// The arithmetic type of a storage type.
template <class T>
using device_t = typename DeviceType<T>::type;

/// Calls body.operator()<X>() with the device's type of `dtype`.
template <class Body>
void dispatch_device_dtype(DType dtype, Body&& body) {
  dispatch_dtype(dtype, [&]<class T>() { body.template operator()<device_t<T>>(); });
}

/// A tensor of rank 2 or 3 whose last dimension is dense.
template <class T>
struct Rows {
  T* data;
  index_t stride;        // elements between neighbours of the first dimension
  index_t inner_stride;  // of the second, if there are three

  __device__ T* row(index_t i) const { return data + i * stride; }
  __device__ T* row(index_t i, index_t j) const { return data + i * stride + j * inner_stride; }
};

template <class T>
Rows<T> rows_of(const TensorView& t) noexcept {
  return {static_cast<T*>(t.data), t.strides[0], t.rank > 2 ? t.strides[1] : 0};
}

/// Whether every row of the tensor begins where `elements` of T can be loaded at once.
template <class T>
bool is_aligned(const TensorView& t, index_t elements) noexcept {
  const auto bytes = static_cast<std::uintptr_t>(elements) * sizeof(T);
  bool is_aligned = reinterpret_cast<std::uintptr_t>(t.data) % bytes == 0;
  for (int i = 0; i + 1 < t.rank; ++i) {
    is_aligned = is_aligned && t.strides[static_cast<std::size_t>(i)] % elements == 0;
  }
  return is_aligned;
}

/// Null where every row stands for itself.
inline const std::int32_t* index_of(const Array<const std::int32_t>& row_index) noexcept {
  return row_index.size == 0 ? nullptr : row_index.data;
}
__device__ inline index_t batch_row(const std::int32_t* row_index, index_t i) {
  return row_index == nullptr ? i : row_index[i];
}

/// The device arrays of a Batch.
struct BatchView {
  const std::int32_t *item, *position, *request, *row_begin, *length, *selects, *lead_row,
      *lead_begin;
  index_t items;

  /// Tokens of an item that were cached before the step.
  __device__ index_t first(index_t i) const { return position[row_begin[i]]; }
};

inline BatchView view_of(const Batch& batch) noexcept {
  return {batch.item.data,      batch.position.data,   batch.request.data,
          batch.row_begin.data, batch.length.data,     batch.selects.data,
          batch.lead_row.data,  batch.lead_begin.data, static_cast<index_t>(batch.items.size())};
}

/// KV heads of the target, of which head_of_kv_head[h] serves h; empty: each serves itself.
inline index_t num_kv_heads(const Array<const std::int32_t>& head_of_kv_head,
                            index_t heads) noexcept {
  return head_of_kv_head.size == 0 ? heads : head_of_kv_head.size;
}
__device__ inline index_t serving_head(const std::int32_t* head_of_kv_head, index_t h) {
  return head_of_kv_head == nullptr ? h : head_of_kv_head[h];
}

__device__ inline bool is_resident(const KVView& kv, index_t request) {
  return kv.resident_groups == nullptr || kv.group < kv.resident_groups[request];
}
/// KVView::row.
__device__ inline std::byte* kv_row(const KVView& kv, index_t request, index_t head,
                                    std::uint32_t n, bool is_staged) {
  const std::uint32_t page_rows = static_cast<std::uint32_t>(kv.page_rows);
  std::byte* const* const pages =
      is_staged ? kv.staging + request * kv.staging_stride : kv.table + request * kv.table_stride;
  return pages[n / page_rows] + (is_staged ? 0 : kv.layer_offset) + head * kv.head_stride +
         static_cast<index_t>(n % page_rows) * kv.row_stride;
}

__host__ __device__ constexpr index_t div_up(index_t a, index_t b) noexcept {
  return (a + b - 1) / b;
}

/// A grid of one dimension.
inline dim3 grid_of(index_t blocks) {
  constexpr index_t kMost = (index_t{1} << 31) - 1;
  if (blocks > kMost) throw Unsupported("a batch needs more than 2^31 blocks");
  return dim3(static_cast<unsigned>(blocks));
}

}  // namespace spectx::cu
