// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <initializer_list>

#include "spectx/backend.hpp"

namespace spectx::cu {

/// Of a launch, at most; an operation that would need more runs in several.
inline constexpr index_t kMostScratchBytes = index_t{128} << 20;
inline constexpr index_t kMostPartialBytes = index_t{64} << 20;  // of attend
inline constexpr index_t kLeastScratchBytes = index_t{4} << 20;  // that a stream takes
inline constexpr index_t kWorkspaceBytes = index_t{32} << 20;    // of cuBLAS: its advice for sm_90
inline constexpr index_t kZeroWords = index_t{1} << 20;  // uint32 of a stream, 0 between launches

/// What the operations of a loop take beside their arguments, at most: the scratch of its stream,
/// which grows to powers of two and keeps those that a graph knows, and the counters of it and of
/// the three streams of a pipeline. Arithmetic alone.
inline index_t scratch_bytes(const ScratchShape& s) noexcept {
  constexpr index_t kStreams = 4;
  constexpr index_t kFewRows = 8;  // of an item, which attend splits
  constexpr index_t kSplits = 64;
  constexpr index_t kFloat = 4;
  // No more than the most, whatever the factors are.
  const auto product = [](std::initializer_list<index_t> factors) {
    index_t bytes = kFloat;
    for (const index_t f : factors) {
      bytes = bytes > kMostScratchBytes / std::max<index_t>(f, 1) ? kMostScratchBytes : bytes * f;
    }
    return bytes;
  };
  const index_t rows =
      s.has_half_rows ? std::min(s.requests, kMostScratchBytes) * kFewRows : s.step_rows;
  const index_t partials =
      std::min(kMostPartialBytes, product({rows, s.query_heads, kSplits, s.head_dim + 2}));
  const index_t products = product({s.requests, s.query_heads, s.max_length + 512});
  const index_t most = std::max({partials, products, kWorkspaceBytes});
  const auto largest = static_cast<index_t>(std::bit_ceil(static_cast<std::uint64_t>(most)));
  return 2 * largest - kLeastScratchBytes + kStreams * kZeroWords * kFloat;
}

}  // namespace spectx::cu
