// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/vec.cuh"
#include "views.cuh"

namespace spectx::cu {

/// The rows of one KV head that an item reads, by rank.
struct KVRows {
  std::byte* const* pages;
  index_t offset;  // of the head's rows inside a page
  index_t row_stride;
  std::uint32_t page_rows;
  const std::int32_t* ids;     // null: every token
  const std::int32_t* places;  // rank -> token or slot; null: the rank itself
  std::int32_t count;          // of ids

  __device__ KVRows(const KVView& kv, index_t item, index_t request, index_t head)
      : row_stride(kv.row_stride),
        page_rows(static_cast<std::uint32_t>(kv.page_rows)),
        ids(nullptr),
        places(nullptr),
        count(0) {
    const index_t at = item * kv.kv_heads + head;
    // Both are read before either is used.
    const std::int32_t own_count = kv.counts == nullptr ? kAllTokens : kv.counts[at];
    const bool is_on_device = is_resident(kv, request);
    const bool reads_all = own_count == kAllTokens;
    const bool is_staged = reads_all && !is_on_device;
    pages =
        is_staged ? kv.staging + request * kv.staging_stride : kv.table + request * kv.table_stride;
    offset = (is_staged ? 0 : kv.layer_offset) + head * kv.head_stride;
    if (reads_all) return;
    count = own_count;
    ids = kv.ids + at * kv.max_budget;
    places = is_on_device ? ids : kv.slot_of_rank + at * kv.max_budget;
  }
  /// Rows `tokens[0 .. count)` of keys that are all on the device.
  __device__ KVRows(const KVView& keys, index_t request, index_t head, const std::int32_t* tokens,
                    std::int32_t num_tokens)
      : pages(keys.table + request * keys.table_stride),
        offset(keys.layer_offset + head * keys.head_stride),
        row_stride(keys.row_stride),
        page_rows(static_cast<std::uint32_t>(keys.page_rows)),
        ids(tokens),
        places(tokens),
        count(num_tokens) {}

  /// Ranks that a row at `position` may see: ids ascend, so they are the first ones.
  __device__ std::int32_t visible(std::int32_t position) const {
    if (ids == nullptr) return position + 1;
    std::int32_t low = 0;
    std::int32_t high = count;
    if (count > 0 && ids[count - 1] <= position) return count;
    while (low < high) {
      const std::int32_t middle = low + (high - low) / 2;
      if (ids[middle] <= position) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
  /// The token or slot of a rank.
  __device__ std::uint32_t place(std::int32_t rank) const {
    return static_cast<std::uint32_t>(places == nullptr ? rank : places[rank]);
  }
  /// Where the K of a place is.
  struct Address {
    const std::byte* page;
    index_t offset;

    __device__ const std::byte* row() const { return page + offset; }
  };
  __device__ Address locate(std::uint32_t n) const {
    return {pages[n / page_rows], offset + static_cast<index_t>(n % page_rows) * row_stride};
  }
  /// The K of a rank.
  __device__ const std::byte* address(std::int32_t rank) const { return locate(place(rank)).row(); }
};

/// Whether rows can be read 16 bytes at a time; page addresses are multiples of that if rows are.
inline bool has_wide_rows(const KVView& kv) noexcept {
  const index_t bits = kv.layer_offset | kv.head_stride | kv.row_stride | kv.v_offset |
                       kv.k_dim * dtype_bytes(kv.dtype) | kv.v_dim * dtype_bytes(kv.dtype);
  return bits % device::kVecBytes == 0;
}

/// Calls body.operator()<kElements, kQueries>() for rows of T: the elements of a load, and how many
/// queries of a group share the reading of a row.
template <class T, class Body>
void dispatch_row_shape(bool is_wide, index_t queries, Body&& body) {
  constexpr int kWide = device::kVecBytes / static_cast<int>(sizeof(T));
  if (!is_wide) return body.template operator()<1, 4>();
  if (queries <= 1) return body.template operator()<kWide, 1>();
  if (queries <= 2) return body.template operator()<kWide, 2>();
  if (queries <= 4) return body.template operator()<kWide, 4>();
  return body.template operator()<kWide, 8>();
}

/// An element of a tensor whose type is known at run time, as a float.
__device__ inline float load_float(const std::byte* data, DType dtype, index_t i) {
  switch (dtype) {
    case DType::f16:
      return device::to_float(reinterpret_cast<const __half*>(data)[i]);
    case DType::bf16:
      return device::to_float(reinterpret_cast<const __nv_bfloat16*>(data)[i]);
    default:
      return reinterpret_cast<const float*>(data)[i];
  }
}

/// Activations of any type, [rows, heads, dim].
struct Queries {
  const std::byte* data;
  DType dtype;
  index_t stride, head_stride;  // elements

  explicit Queries(const TensorView& t)
      : data(static_cast<const std::byte*>(t.data)),
        dtype(t.dtype),
        stride(t.strides[0]),
        head_stride(t.strides[1]) {
    dispatch_dtype(t.dtype, [&]<class T>() {});  // throws for a type that is none of the three
  }
  __device__ float get(index_t row, index_t head, index_t d) const {
    return load_float(data, dtype, row * stride + head * head_stride + d);
  }
};

}  // namespace spectx::cu
