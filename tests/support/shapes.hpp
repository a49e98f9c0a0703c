// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <vector>

#include "spectx/types.hpp"

namespace spectx::test {

/// Sizes around the tiles of every backend: nothing, one, odd ones, a tile and its neighbours.
inline const std::vector<index_t> kRowCounts = {0, 1, 2, 7, 8, 9, 31, 64, 65};
inline const std::vector<index_t> kWidths = {1, 15, 16, 17, 63, 64, 255, 1025};

struct HeadsShape {
  index_t query_heads, kv_heads, k_dim, v_dim;
};

/// MHA, GQA, MQA; k_dim and v_dim that differ; dims that are no power of two.
inline const std::vector<HeadsShape> kHeadsShapes = {{2, 2, 64, 64},   {9, 3, 64, 64},
                                                     {4, 1, 128, 128}, {4, 2, 80, 80},
                                                     {3, 3, 96, 32},   {2, 1, 6, 10}};

/// Those of CUDA's kernels for tensor cores: every head dim that they know, large groups, and one
/// that they do not take.
inline const std::vector<HeadsShape> kHalfHeadsShapes = {
    {32, 8, 128, 128}, {9, 3, 64, 64},   {4, 2, 80, 80}, {3, 3, 96, 96},
    {71, 1, 64, 64},   {4, 2, 256, 256}, {2, 1, 6, 10}};

inline const std::vector<DType> kRowTypes = {DType::f32, DType::f16, DType::bf16};

}  // namespace spectx::test
