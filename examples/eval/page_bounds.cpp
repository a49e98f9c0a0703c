// SPDX-License-Identifier: Apache-2.0
#include "eval/page_bounds.hpp"

#include <algorithm>
#include <limits>

namespace spectx::eval {

void PageBounds::add(index_t layer, const float* keys) {
  Bounds& bounds = layers_[static_cast<std::size_t>(layer)];
  const index_t width = shape_.kv_heads * shape_.k_dim;
  const index_t page = bounds.tokens / kPageTokens;
  if (bounds.tokens % kPageTokens == 0) {
    const auto size = static_cast<std::size_t>((page + 1) * width);
    bounds.low.resize(size, std::numeric_limits<float>::infinity());
    bounds.high.resize(size, -std::numeric_limits<float>::infinity());
  }
  float* const low = bounds.low.data() + page * width;
  float* const high = bounds.high.data() + page * width;
  for (index_t i = 0; i < width; ++i) {
    low[i] = std::min(low[i], keys[i]);
    high[i] = std::max(high[i], keys[i]);
  }
  ++bounds.tokens;
}

void PageBounds::read(const KVPool& pool, RequestId request, index_t length, HostCopy& host) {
  layers_.assign(static_cast<std::size_t>(shape_.layers), {});
  std::vector<float> keys(static_cast<std::size_t>(shape_.kv_heads * shape_.k_dim));
  for (index_t layer = 0; layer < shape_.layers; ++layer) {
    const KVView rows = pool.layer_view(layer);
    std::vector<std::byte*> pages(static_cast<std::size_t>(ceil_div(length, rows.page_rows)));
    host.bytes(pages.data(), rows.pages_of(request.value, false),
               static_cast<index_t>(pages.size() * sizeof(std::byte*)));
    std::vector<std::byte> page(static_cast<std::size_t>(pool.layout().layer_bytes));
    for (index_t n = 0; n < length; ++n) {
      if (n % rows.page_rows == 0) {
        host.bytes(page.data(),
                   pages[static_cast<std::size_t>(n / rows.page_rows)] + rows.offset_of(false),
                   static_cast<index_t>(page.size()));
      }
      for (index_t h = 0; h < shape_.kv_heads; ++h) {
        to_floats(page.data() + h * rows.head_stride + n % rows.page_rows * rows.row_stride,
                  rows.dtype, shape_.k_dim, keys.data() + h * shape_.k_dim);
      }
      add(layer, keys.data());
    }
  }
}

void PageBounds::score(index_t layer, index_t kv_head, const float* queries,
                       std::span<float> scores) const {
  const Bounds& bounds = layers_[static_cast<std::size_t>(layer)];
  const index_t dim = shape_.k_dim;
  const index_t group = shape_.group_size();
  for (index_t first = 0; first < bounds.tokens; first += kPageTokens) {
    const index_t at = (first / kPageTokens * shape_.kv_heads + kv_head) * dim;
    const float* const low = bounds.low.data() + at;
    const float* const high = bounds.high.data() + at;
    float best = -std::numeric_limits<float>::infinity();
    for (index_t g = 0; g < group; ++g) {
      const float* const q = queries + (kv_head * group + g) * dim;
      float bound = 0;
      for (index_t d = 0; d < dim; ++d) bound += std::max(q[d] * low[d], q[d] * high[d]);
      best = std::max(best, bound);
    }
    const index_t end = std::min(first + kPageTokens, bounds.tokens);
    std::fill(scores.begin() + first, scores.begin() + end, best);
  }
}

}  // namespace spectx::eval
