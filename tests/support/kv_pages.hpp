// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <vector>

#include "device_data.hpp"
#include "random.hpp"
#include "reference.hpp"
#include "spectx/kv_view.hpp"

namespace spectx::test {

struct PagesShape {
  index_t requests = 1;
  index_t kv_heads = 1;
  index_t k_dim = 64;
  index_t v_dim = 64;  // 0: keys only
  index_t rows = 64;   // of a request
  index_t page_rows = 16;
  DType dtype = DType::bf16;
  PageOrder order = PageOrder::heads;
};

/// Pages of one layer in device memory, scattered over an arena in an order that the seed gives.
/// Rows that were not set are NaN.
class KVPages {
 public:
  KVPages(Backend& backend, const PagesShape& shape, std::uint32_t seed = 1)
      : shape_(shape),
        columns_((shape.rows + shape.page_rows - 1) / shape.page_rows),
        bytes_(at(shape.requests * columns_ * page_bytes()), std::byte{0xff}),
        arena_(backend, bytes_),
        table_(backend, addresses(seed)) {}

  /// Row n (token or slot), rounded to the pages' type.
  void set(index_t request, index_t head, index_t n, const std::vector<float>& k,
           const std::vector<float>& v) {
    dispatch_dtype(shape_.dtype, [&]<class T>() {
      store<T>(k, offset(request, head, n));
      store<T>(v, offset(request, head, n) + at(strides().v));
    });
  }
  void upload() { arena_.write(bytes_); }
  void download() { bytes_ = arena_.read(); }
  /// Row n, K then V.
  std::vector<float> get(index_t request, index_t head, index_t n) const {
    std::vector<float> values;
    dispatch_dtype(shape_.dtype, [&]<class T>() {
      for (index_t d = 0; d < shape_.k_dim + shape_.v_dim; ++d) {
        T element;
        const index_t of_part = d < shape_.k_dim ? d : d - shape_.k_dim;
        const std::size_t part = offset(request, head, n) + at(d < shape_.k_dim ? 0 : strides().v);
        std::memcpy(&element, bytes_.data() + part + at(of_part) * sizeof(T), sizeof(T));
        values.push_back(to_float(element));
      }
    });
    return values;
  }

  /// `staging`: pages of the same shape for items that read everything of an offloaded group.
  KVView view(const KVPages* staging = nullptr) const noexcept {
    KVView view;
    view.table = table_.data();
    view.table_stride = columns_;
    if (staging != nullptr) {
      view.staging = staging->table_.data();
      view.staging_stride = staging->columns_;
    }
    view.page_rows = shape_.page_rows;
    view.v_offset = strides().v;
    view.row_stride = strides().row;
    view.head_stride = strides().head;
    view.dtype = shape_.dtype;
    view.kv_heads = shape_.kv_heads;
    view.k_dim = shape_.k_dim;
    view.v_dim = shape_.v_dim;
    return view;
  }

 private:
  PageStrides strides() const noexcept {
    const index_t element = dtype_bytes(shape_.dtype);
    return page_strides(shape_.order, shape_.page_rows, shape_.kv_heads, shape_.k_dim * element,
                        shape_.v_dim * element);
  }
  index_t page_bytes() const noexcept { return strides().layer; }

  std::vector<std::byte*> addresses(std::uint32_t seed) {
    order_ = Random(seed).permutation(shape_.requests * columns_);
    std::vector<std::byte*> pages;
    for (const std::int32_t page : order_) pages.push_back(arena_.data() + page * page_bytes());
    return pages;
  }
  std::size_t offset(index_t request, index_t head, index_t n) const noexcept {
    const index_t page = order_[at(request * columns_ + n / shape_.page_rows)];
    return at(page * page_bytes() + head * strides().head + n % shape_.page_rows * strides().row);
  }
  template <class T>
  void store(const std::vector<float>& values, std::size_t to) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const T element = from_float<T>(values[i]);
      std::memcpy(bytes_.data() + to + i * sizeof(T), &element, sizeof(T));
    }
  }

  PagesShape shape_;
  index_t columns_;
  std::vector<std::byte> bytes_;
  DeviceArray<std::byte> arena_;
  std::vector<std::int32_t> order_;
  DeviceArray<std::byte*> table_;
};

}  // namespace spectx::test
