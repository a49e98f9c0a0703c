// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "spectx/kv_pool.hpp"

namespace spectx::test {

/// What the rows of a simulated pool hold: a hash of the write that made them. A step attends with
/// q = 0, so that an output is the mean of the selected rows: one wrong row and it differs.
class SimulatedRows {
 public:
  SimulatedRows(const ModelShape& shape, DType host) : shape_(shape), host_(host) {}

  /// Element d of V. A whole number below 2^10, so that sums of a thousand are exact in float; one
  /// that the host tier holds without loss: four bits for f8_e4m3, seven beside a 127 for i8.
  float value(std::uint32_t write, index_t layer, index_t head, index_t d) const {
    if (host_ == DType::i8 && d == 0) return 127;
    std::uint32_t x = write * 2654435761U + static_cast<std::uint32_t>(layer * 97 + head * 31 + d);
    x = (x ^ (x >> 15)) * 2246822519U;
    x = (x ^ (x >> 13)) * 3266489917U;
    const std::uint32_t values = host_ == DType::i8 ? 128 : host_ == DType::f8_e4m3 ? 16 : 1024;
    return static_cast<float>((x >> 16) % values * (host_ == DType::f8_e4m3 ? 8 : 1));
  }

  /// Of a step's outputs, relative to the largest value.
  /// @param held    [items][tokens] the write of each row, the step's included
  /// @param chosen  [items * kv_heads] the selection
  /// @param got     [rows, query_heads, v_dim]
  double largest_error(index_t layer, const Batch& batch,
                       const std::vector<std::vector<std::uint32_t>>& held,
                       const std::vector<std::vector<std::int32_t>>& chosen,
                       const std::vector<float>& got) const {
    double worst = 0;
    std::size_t at = 0;
    for (std::size_t i = 0; i < batch.items.size(); ++i) {
      const ScheduledItem& item = batch.items[i];
      for (index_t n = item.first; n < item.first + item.rows; ++n) {
        for (index_t q = 0; q < shape_.query_heads; ++q) {
          const index_t h = q / shape_.group_size();
          const auto& ids =
              chosen[i * static_cast<std::size_t>(shape_.kv_heads) + static_cast<std::size_t>(h)];
          const std::vector<std::uint32_t> writes =
              item.selects ? selected(held[i], ids, n)
                           : std::vector<std::uint32_t>(held[i].begin(), held[i].begin() + n + 1);
          for (index_t d = 0; d < shape_.v_dim; ++d, ++at) {
            const double error = std::abs(static_cast<double>(got[at]) - mean(writes, layer, h, d));
            worst = std::max(worst, error / 1024);
          }
        }
      }
    }
    return worst;
  }

 private:
  /// Of the selected rows up to token n.
  static std::vector<std::uint32_t> selected(const std::vector<std::uint32_t>& held,
                                             const std::vector<std::int32_t>& ids, index_t n) {
    std::vector<std::uint32_t> writes;
    for (const std::int32_t id : ids) {
      if (id <= n) writes.push_back(held[static_cast<std::size_t>(id)]);
    }
    return writes;
  }
  double mean(const std::vector<std::uint32_t>& writes, index_t layer, index_t head,
              index_t d) const {
    double sum = 0;
    for (const std::uint32_t write : writes) {
      sum += static_cast<double>(value(write, layer, head, d));
    }
    return sum / static_cast<double>(writes.size());
  }

  ModelShape shape_;
  DType host_;
};

}  // namespace spectx::test
