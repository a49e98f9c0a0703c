// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "device_reader.hpp"
#include "simulated_rows.hpp"
#include "spectx/prefetch_pipeline.hpp"

namespace spectx::test {

/// A layer of a step: appends rows of known values and attends to what its items read.
class SimulatedLayers {
 public:
  using Writes = std::vector<std::uint32_t>;

  SimulatedLayers(Backend& backend, const ModelShape& shape, const PoolPlan& plan,
                  StreamView stream)
      : backend_(backend),
        shape_(shape),
        stream_(stream),
        reader_(backend, backend.memories().host),
        content_(shape, plan.host_dtype) {
    const index_t width = std::max(shape.query_heads, shape.kv_heads) * (shape.k_dim + shape.v_dim);
    for (Buffer* b : {&k_, &v_, &q_, &out_}) {
      *b = Buffer(backend.memories().device, plan.max_step_rows * width * 4);
    }
    backend.fill(q_.data(), 0, q_.bytes(), stream_);
    backend.fill(k_.data(), 0x3f, k_.bytes(), stream_);
  }

  /// The largest error of an output, relative to the largest value.
  /// @param writes  of the batch's rows    @param held  [items] of all rows of an item's request
  /// @param chosen  [items, kv_heads] the selected ids
  double run(PrefetchPipeline& pipeline, index_t layer, const Batch& batch, const Writes& writes,
             const std::vector<Writes>& held,
             const std::vector<std::vector<std::int32_t>>& chosen) {
    std::vector<float> v;
    for (const std::uint32_t write : writes) {
      for (index_t h = 0; h < shape_.kv_heads; ++h) {
        for (index_t d = 0; d < shape_.v_dim; ++d) v.push_back(content_.value(write, layer, h, d));
      }
    }
    backend_.copy(v_.data(), v.data(), static_cast<index_t>(v.size() * 4), stream_);
    const auto view = [&](const Buffer& b, index_t h, index_t dim) {
      return split_heads(matrix_view(b.data(), DType::f32, batch.num_rows, h * dim), h, dim);
    };
    const KVView rows = pipeline.append(layer, view(k_, shape_.kv_heads, shape_.k_dim),
                                        view(v_, shape_.kv_heads, shape_.v_dim), stream_);
    const TensorView out = view(out_, shape_.query_heads, shape_.v_dim);
    backend_.attend(
        {.q = view(q_, shape_.query_heads, shape_.k_dim), .kv = rows, .batch = &batch, .out = out},
        stream_);
    const float* const read = reader_.ask(out.as<const float>(), out.size(), stream_);
    reader_.wait(stream_);
    return content_.largest_error(layer, batch, held, chosen, {read, read + out.size()});
  }

 private:
  Backend& backend_;
  ModelShape shape_;
  StreamView stream_;
  DeviceReader reader_;
  SimulatedRows content_;
  Buffer k_, v_, q_, out_;
};

}  // namespace spectx::test
