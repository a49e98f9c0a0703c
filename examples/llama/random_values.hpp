// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <random>
#include <vector>

#include "spectx/backend.hpp"
#include "spectx/dispatch.hpp"
#include "spectx/half.hpp"

namespace spectx::llama {

/// Fills a contiguous tensor of device memory with values of standard deviation 0.02, as models
/// start with.
inline void fill_random(Backend& backend, TensorView to, std::uint64_t seed, StreamView stream) {
  std::mt19937_64 engine(seed);
  const index_t count = to.size();
  dispatch_dtype(to.dtype, [&]<class T>() {
    std::vector<T> values(static_cast<std::size_t>(count));
    for (T& value : values) {
      // The sum of four uniform values is near enough to a normal one.
      const std::uint64_t bits = engine();
      float sum = -2;
      for (int i = 0; i < 4; ++i) sum += static_cast<float>(bits >> (16 * i) & 0xffffU) * 0x1p-16F;
      value = from_float<T>(sum * 0.0346F);
    }
    backend.copy(to.data, values.data(), count * static_cast<index_t>(sizeof(T)), stream);
    backend.synchronize(stream);
  });
}

}  // namespace spectx::llama
