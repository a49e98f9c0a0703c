// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>

#include "spectx/batch.hpp"
#include "spectx/half.hpp"
#include "spectx/view.hpp"

namespace spectx::cpu {

template <class T>
void to_floats(const T* from, index_t count, float* to) noexcept {
  for (index_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
}

template <class T>
void from_floats(const float* from, index_t count, T* to) noexcept {
  for (index_t i = 0; i < count; ++i) to[i] = from_float<T>(from[i]);
}

/// Starts to bring the cache lines of [from, from + bytes) near: into the second cache, for the
/// first has no room for what is asked for far ahead.
inline void prefetch(const void* from, index_t bytes) noexcept {
  const char* const begin = static_cast<const char*>(from);
  for (index_t i = 0; i < bytes; i += 64) __builtin_prefetch(begin + i, 0, 2);
}

/// Row i of a tensor of rank 2 or 3.
template <class T = float>
T* row(const TensorView& t, index_t i) noexcept {
  return t.as<T>() + i * t.strides[0];
}

/// Entry (i, j) of a tensor of rank 3.
template <class T = float>
T* row(const TensorView& t, index_t i, index_t j) noexcept {
  return t.as<T>() + i * t.strides[0] + j * t.strides[1];
}

/// The row of the batch that row i of an operation stands for; negative: none.
inline index_t batch_row(const Array<const std::int32_t>& row_index, index_t i) noexcept {
  return row_index.size == 0 ? i : row_index.data[i];
}

/// KV heads of the target, of which head_of_kv_head[h] serves h; empty: each serves itself.
inline index_t num_kv_heads(const Array<const std::int32_t>& head_of_kv_head,
                            index_t heads) noexcept {
  return head_of_kv_head.size == 0 ? heads : head_of_kv_head.size;
}
inline index_t serving_head(const Array<const std::int32_t>& head_of_kv_head, index_t h) noexcept {
  return head_of_kv_head.size == 0 ? h : head_of_kv_head.data[h];
}

inline index_t num_items(const Batch& batch) noexcept {
  return static_cast<index_t>(batch.items.size());
}

}  // namespace spectx::cpu
