// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "spectx/types.hpp"

namespace spectx::test {

/// Sizes around the tiles of every backend: nothing, one, odd ones, a tile and its neighbours.
inline constexpr std::array<index_t, 9> kRowCounts = {0, 1, 2, 7, 8, 9, 31, 64, 65};
inline constexpr std::array<index_t, 8> kWidths = {1, 15, 16, 17, 63, 64, 255, 1025};

struct HeadsShape {
  index_t query_heads, kv_heads, k_dim, v_dim;
};

/// MHA, GQA, MQA; k_dim and v_dim that differ; dims that are no power of two.
inline constexpr std::array<HeadsShape, 6> kHeadsShapes = {{{2, 2, 64, 64},
                                                            {9, 3, 64, 64},
                                                            {4, 1, 128, 128},
                                                            {4, 2, 80, 80},
                                                            {3, 3, 96, 32},
                                                            {2, 1, 6, 10}}};

inline constexpr std::array<DType, 3> kRowTypes = {DType::f32, DType::f16, DType::bf16};

}  // namespace spectx::test
