// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "host_reference.hpp"
#include "spectx/dispatch.hpp"
#include "spectx/kv_pool.hpp"

namespace spectx::test {

/// Rows whose content follows from the number of the write that made them.
class KnownRows {
 public:
  KnownRows(const ModelShape& shape, DType host) : shape_(shape), host_(host) {}

  /// Elements of one KV head, K then V. Whole numbers that every row type holds.
  std::vector<float> values(int write, index_t layer, index_t head, index_t first,
                            index_t count) const {
    std::vector<float> row;
    for (index_t d = first; d < first + count; ++d) {
      std::uint32_t x = static_cast<std::uint32_t>(write * 8191 + layer * 97 + head * 31 + d);
      x = (x ^ (x >> 7)) * 2246822519U;
      row.push_back(static_cast<float>((x >> 16) % 256) - 128);
    }
    return row;
  }

  /// `lossy`: it lost in the host tier what such a tier loses.
  enum class State { exact, lossy, wrong };
  /// What a row is that is found on the device.
  State state(const std::byte* k_found, const std::byte* v_found, int write, index_t layer,
              index_t head) const {
    const std::vector<float> k = values(write, layer, head, 0, shape_.k_dim);
    const std::vector<float> v = values(write, layer, head, shape_.k_dim, shape_.v_dim);
    const std::vector<float> found =
        joined(read(k_found, shape_.k_dim), read(v_found, shape_.v_dim));
    if (found == joined(k, v)) return State::exact;
    const bool is_lossy =
        found == joined(through_host(k, shape_.dtype, host_), through_host(v, shape_.dtype, host_));
    return is_lossy ? State::lossy : State::wrong;
  }

 private:
  std::vector<float> read(const std::byte* from, index_t count) const {
    std::vector<float> elements;
    dispatch_dtype(shape_.dtype, [&]<class T>() {
      for (index_t d = 0; d < count; ++d) {
        elements.push_back(to_float(reinterpret_cast<const T*>(from)[d]));
      }
    });
    return elements;
  }
  static std::vector<float> joined(std::vector<float> k, const std::vector<float>& v) {
    k.insert(k.end(), v.begin(), v.end());
    return k;
  }

  ModelShape shape_;
  DType host_;
};

}  // namespace spectx::test
