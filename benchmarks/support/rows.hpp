// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <numeric>
#include <string>
#include <vector>

#include "spectx/bytes_moved.hpp"
#include "support/batches.hpp"
#include "support/machine.hpp"
#include "support/model_sizes.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

namespace spectx::bench {

/// A tensor of random values in memory beyond the caches: `copies` of it, one after the other.
class Tensors {
 public:
  Tensors(DType dtype, index_t rows, index_t cols, index_t copies = 1)
      : dtype_(dtype),
        rows_(rows),
        cols_(cols),
        copies_(copies),
        buffer_(Machine::get().backend().memories().device, copies * copy_bytes()) {
    // A pattern is enough: no operation is faster for one value than for another.
    const std::vector<float> values = test::Random(1).normal(kPattern);
    dispatch_dtype(dtype, [&]<class T>() {
      T* const to = reinterpret_cast<T*>(buffer_.data());
      for (index_t i = 0; i < copies * rows * cols; ++i) {
        to[i] = from_float<T>(values[test::at((i + i / kPattern) % kPattern)]);
      }
    });
  }

  TensorView view(index_t copy = 0) const {
    return matrix_view(buffer_.data() + copy % copies_ * copy_bytes(), dtype_, rows_, cols_);
  }
  TensorView heads(index_t count, index_t copy = 0) const {
    return split_heads(view(copy), count, cols_ / count);
  }
  /// [rows * cols] of the first copy.
  std::vector<float> read() const {
    std::vector<float> values;
    dispatch_dtype(dtype_, [&]<class T>() {
      const T* const from = reinterpret_cast<const T*>(buffer_.data());
      for (index_t i = 0; i < rows_ * cols_; ++i) values.push_back(to_float(from[i]));
    });
    return values;
  }

 private:
  static constexpr index_t kPattern = 4093;  // a prime: rows differ

  index_t copy_bytes() const noexcept { return rows_ * cols_ * dtype_bytes(dtype_); }

  DType dtype_;
  index_t rows_, cols_, copies_;
  Buffer buffer_;
};

/// Cached rows of one request: `copies` layers, in pages of 64 tokens.
class CachedRows {
 public:
  static constexpr index_t kPageRows = 64;

  CachedRows(const ModelSizes& m, index_t tokens, bool has_v)
      : pages_((tokens + kPageRows - 1) / kPageRows),
        width_(m.head_dim * (has_v ? 2 : 1)),
        copies_(copies_of(pages_ * kPageRows * m.kv_heads * width_ * 2)),
        rows_(DType::bf16, pages_ * kPageRows * m.kv_heads, width_, copies_) {
    view_.table_stride = pages_;
    view_.page_rows = kPageRows;
    view_.row_stride = width_ * 2;
    view_.head_stride = kPageRows * width_ * 2;
    view_.v_offset = m.head_dim * 2;
    view_.kv_heads = m.kv_heads;
    view_.k_dim = m.head_dim;
    view_.v_dim = has_v ? m.head_dim : 0;
    for (index_t page = 0; page < copies_ * pages_; ++page) {
      std::byte* const first = static_cast<std::byte*>(rows_.view(page / pages_).data);
      table_.push_back(first + page % pages_ * kPageRows * m.kv_heads * width_ * 2);
    }
  }

  KVView view(index_t copy = 0) const {
    KVView v = view_;
    v.table = table_.data() + copy % copies_ * pages_;
    return v;
  }
  /// Element d of K (V: d + k_dim) of a row of the first copy.
  double element(index_t head, index_t token, index_t d) const {
    const std::byte* const at = view().row(0, head, token) + d * 2;
    return static_cast<double>(to_float(*reinterpret_cast<const bf16_t*>(at)));
  }

 private:
  index_t pages_, width_, copies_;
  Tensors rows_;
  std::vector<std::byte*> table_;
  KVView view_;
};

/// One request that decodes at `length`.
inline std::vector<ScheduledItem> decoding(index_t length) {
  return {{.request = {0}, .first = length - 1, .rows = 1, .is_dense = false, .selects = true}};
}

}  // namespace spectx::bench
