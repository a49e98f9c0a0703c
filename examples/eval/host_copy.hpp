// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <vector>

#include "spectx/backend.hpp"
#include "spectx/dispatch.hpp"
#include "spectx/half.hpp"

namespace spectx::eval {

/// `count` numbers of type `dtype` in host memory, as floats.
inline void to_floats(const std::byte* from, DType dtype, index_t count, float* to) {
  dispatch_dtype(dtype, [&]<class T>() {
    for (index_t i = 0; i < count; ++i) {
      T value;
      std::memcpy(&value, from + i * index_t{sizeof(T)}, sizeof(T));
      to[i] = to_float(value);
    }
  });
}

/// Brings device memory to the host; blocks.
class HostCopy {
 public:
  HostCopy(Backend& backend, StreamView stream) : backend_(backend), stream_(stream) {}

  void bytes(void* to, const void* from, index_t count) const {
    backend_.copy(to, from, count, stream_);
    backend_.synchronize(stream_);
  }
  /// `count` numbers that lie side by side.
  void floats(float* to, const void* from, DType dtype, index_t count) {
    raw_.resize(static_cast<std::size_t>(count * dtype_bytes(dtype)));
    bytes(raw_.data(), from, static_cast<index_t>(raw_.size()));
    to_floats(raw_.data(), dtype, count, to);
  }

 private:
  Backend& backend_;
  StreamView stream_;
  std::vector<std::byte> raw_;
};

}  // namespace spectx::eval
