// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <limits>
#include <vector>

#include "spectx/backend.hpp"
#include "spectx/dispatch.hpp"

namespace spectx::test {

/// An array in one of a backend's memories, filled and read through the backend.
template <class T>
class DeviceArray {
 public:
  DeviceArray(Backend& backend, const std::vector<T>& values, Tier tier = Tier::device)
      : backend_(&backend),
        count_(static_cast<index_t>(values.size())),
        buffer_(tier == Tier::device ? backend.memories().device : backend.memories().host,
                bytes()) {
    write(values);
  }

  void write(const std::vector<T>& values) {
    const Stream stream = backend_->make_stream();
    if (bytes() > 0) backend_->copy(buffer_.data(), values.data(), bytes(), stream);
    backend_->synchronize(stream);
  }
  std::vector<T> read() const {
    std::vector<T> values(static_cast<std::size_t>(count_));
    const Stream stream = backend_->make_stream();
    if (bytes() > 0) backend_->copy(values.data(), buffer_.data(), bytes(), stream);
    backend_->synchronize(stream);
    return values;
  }

  T* data() const noexcept { return reinterpret_cast<T*>(buffer_.data()); }
  operator Array<T>() const noexcept { return {data(), count_}; }
  operator Array<const T>() const noexcept { return {data(), count_}; }

 private:
  index_t bytes() const noexcept { return count_ * static_cast<index_t>(sizeof(T)); }

  Backend* backend_;
  index_t count_;
  Buffer buffer_;
};

/// body(stream), waited for.
inline void run_on(Backend& backend, auto&& body) {
  const Stream stream = backend.make_stream();
  body(StreamView(stream));
  backend.synchronize(stream);
}

/// How a matrix lies in device memory: rows further apart than they are long, and the first one off
/// the alignment of an allocation.
struct Padding {
  index_t columns = 0;  // after each row
  index_t offset = 0;   // elements before the first row
};

/// A matrix in device memory. What lies between its rows is NaN and must stay so.
class DeviceMatrix {
 public:
  /// Rounds `values` [rows, cols] to `dtype`.
  DeviceMatrix(Backend& backend, DType dtype, index_t rows, index_t cols,
               const std::vector<float>& values, Padding padding = {})
      : dtype_(dtype), rows_(rows), cols_(cols), padding_(padding) {
    for (const float value : values) rounded_.push_back(round(value));
    std::vector<std::byte> bytes = blank();
    dispatch_dtype(dtype, [&]<class T>() {
      for (index_t i = 0; i < rows * cols; ++i) {
        const T element = from_float<T>(values[static_cast<std::size_t>(i)]);
        std::memcpy(bytes.data() + offset(i), &element, sizeof(T));
      }
    });
    memory_.emplace_back(backend, bytes);
  }
  /// All NaN: for what an operation writes.
  DeviceMatrix(Backend& backend, DType dtype, index_t rows, index_t cols, Padding padding = {})
      : DeviceMatrix(backend, dtype, rows, cols,
                     std::vector<float>(static_cast<std::size_t>(rows * cols),
                                        std::numeric_limits<float>::quiet_NaN()),
                     padding) {}

  TensorView view() const noexcept {
    return matrix_view(memory_[0].data() + padding_.offset * dtype_bytes(dtype_), dtype_, rows_,
                       cols_, cols_ + padding_.columns);
  }
  TensorView heads(index_t count) const noexcept {
    return split_heads(view(), count, cols_ / count);
  }
  /// What the constructor wrote, as the device holds it. [rows, cols]
  const std::vector<float>& rounded() const noexcept { return rounded_; }

  std::vector<float> read() const {
    const std::vector<std::byte> bytes = memory_[0].read();
    std::vector<float> values;
    dispatch_dtype(dtype_, [&]<class T>() {
      for (index_t i = 0; i < rows_ * cols_; ++i) {
        T element;
        std::memcpy(&element, bytes.data() + offset(i), sizeof(T));
        values.push_back(to_float(element));
      }
    });
    return values;
  }
  /// Whether something was written beside the rows.
  bool is_padding_intact() const {
    std::vector<std::byte> bytes = memory_[0].read();
    const std::size_t element = static_cast<std::size_t>(dtype_bytes(dtype_));
    for (index_t i = 0; i < rows_ * cols_; ++i) {
      std::memset(bytes.data() + offset(i), kNaNByte, element);
    }
    return bytes == blank();
  }

 private:
  static constexpr int kNaNByte = 0xff;  // every type that is all ones is a NaN

  float round(float value) const {
    return dispatch_dtype(dtype_, [&]<class T>() { return to_float(from_float<T>(value)); });
  }
  std::size_t offset(index_t i) const noexcept {
    const index_t row_elements = cols_ + padding_.columns;
    const index_t at = padding_.offset + i / cols_ * row_elements + i % cols_;
    return static_cast<std::size_t>(at * dtype_bytes(dtype_));
  }
  std::vector<std::byte> blank() const {
    const index_t elements = padding_.offset + rows_ * (cols_ + padding_.columns);
    return std::vector<std::byte>(static_cast<std::size_t>(elements * dtype_bytes(dtype_)),
                                  std::byte{kNaNByte});
  }

  DType dtype_;
  index_t rows_, cols_;
  Padding padding_;
  std::vector<float> rounded_;
  std::vector<DeviceArray<std::byte>> memory_;
};

}  // namespace spectx::test
