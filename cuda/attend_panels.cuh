// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attend_many_rows.cuh"
#include "device/barrier.cuh"
#include "device/wgmma.cuh"

// Shared memory of a block of attend_warpgroups.cu, and the warps that fill it.
namespace spectx::cu::attend::warpgroups {

inline constexpr int kGroupThreads = 128;
inline constexpr int kGroupWarps = kGroupThreads / device::kWarpSize;
inline constexpr int kGroupQueries = 64;  // the height of a product
inline constexpr int kMultipliers = 2;    // warpgroups that multiply; one more copies rows
inline constexpr int kBlockThreads = (kMultipliers + 1) * kGroupThreads;
inline constexpr int kTileQueries = kMultipliers * kGroupQueries;
inline constexpr int kTileRanks = 128;
inline constexpr int kStages = 2;
inline constexpr int kVecElements = 8;  // 16 bytes
inline constexpr int kPanelVecs = 8;    // 64 elements
inline constexpr int kPanelRowBytes = kPanelVecs * device::kVecBytes;
inline constexpr int kSumSteps = 16;  // what a product sums over

/// Rows in shared memory as device::operand() wants them.
template <int kDim, int kRows>
struct Panels {
  static constexpr int kRowVecs = kDim / kVecElements;
  static constexpr int kPanelBytes = kRows * kPanelRowBytes;
  static constexpr int kBytes = kRowVecs / kPanelVecs * kPanelBytes;
  std::byte* data;

  __device__ std::byte* at(int row, int vec) const {
    return data + vec / kPanelVecs * kPanelBytes + row * kPanelRowBytes +
           ((vec % kPanelVecs) ^ (row % 8)) * device::kVecBytes;
  }
  /// From a row on, kSumSteps columns from 16 * step on; summed over along a row.
  __device__ std::uint64_t columns(int row, int step) const {
    constexpr int kPanelSteps = kPanelVecs * kVecElements / kSumSteps;
    return device::operand(data + step / kPanelSteps * kPanelBytes + row * kPanelRowBytes +
                               step % kPanelSteps * kSumSteps * 2,
                           16);
  }
  /// All columns of kSumSteps rows, which are summed over.
  __device__ std::uint64_t rows(int first) const {
    return device::operand(data + first * kPanelRowBytes, kPanelBytes);
  }
};

/// A block's shared memory, from a multiple of 1,024 bytes on.
template <int kDim>
struct Memory {
  using Q = Panels<kDim, kTileQueries>;
  using KV = Panels<kDim, kTileRanks>;
  static constexpr int kBytes = Q::kBytes + 2 * kStages * KV::kBytes;
  std::byte* data;

  __device__ Q queries() const { return {data}; }
  __device__ KV keys(int tile) const { return {data + Q::kBytes + tile % kStages * KV::kBytes}; }
  __device__ KV values(int tile) const {
    return {data + Q::kBytes + (kStages + tile % kStages) * KV::kBytes};
  }
};

struct Barriers {
  std::uint64_t has_keys[kStages], has_values[kStages];  // two warps have copied them
  std::uint64_t used_keys[kStages], used_values[kStages];

  __device__ void make() {
    for (int i = 0; i < kStages; ++i) {
      device::make_barrier(&has_keys[i], kGroupWarps / 2);
      device::make_barrier(&has_values[i], kGroupWarps / 2);
      device::make_barrier(&used_keys[i], kMultipliers * kGroupWarps);
      device::make_barrier(&used_values[i], kMultipliers * kGroupWarps);
    }
    device::publish_barriers();
  }
};
__device__ inline void arrive_as_warp(std::uint64_t* barrier) {
  __syncwarp();
  if (device::lane_index() == 0) device::arrive(barrier);
}
/// The parity of the phase in which a tile's stage was filled, and used.
__device__ inline std::uint32_t parity_of(int tile) {
  return static_cast<std::uint32_t>(tile / kStages) % 2;
}

/// Copies the keys, or the values, of all tiles: a warp half of the rows of each.
template <int kDim>
__device__ void copy_rows(const Memory<kDim>& memory, const KVRows& kv, int ranks, int tiles,
                          index_t v_offset, Barriers& barriers) {
  using Rows = typename Memory<kDim>::KV;
  constexpr int kWarpRanks = kTileRanks / 2;
  constexpr int kAddresses = kWarpRanks / device::kWarpSize;
  constexpr int kCopyRanks = device::kWarpSize / Rows::kRowVecs;
  const int warp = device::warp_index() % kGroupWarps;
  const bool is_keys = warp < 2;
  const int first = warp % 2 * kWarpRanks;
  const int lane = device::lane_index();
  std::uint64_t* const has = is_keys ? barriers.has_keys : barriers.has_values;
  std::uint64_t* const used = is_keys ? barriers.used_keys : barriers.used_values;
  for (int tile = 0; tile < tiles; ++tile) {
    unsigned long long address[kAddresses];
#pragma unroll
    for (int i = 0; i < kAddresses; ++i) {
      // Past the end a seen row stands in: its weight is 0, and it is finite.
      const int rank = min(tile * kTileRanks + first + i * device::kWarpSize + lane, ranks - 1);
      address[i] = reinterpret_cast<unsigned long long>(kv.address(rank) +
                                                        (is_keys ? index_t{0} : v_offset));
    }
    const Rows rows = is_keys ? memory.keys(tile) : memory.values(tile);
    device::wait_for_phase(&used[tile % kStages], parity_of(tile) ^ 1U);
#pragma unroll
    for (int i = 0; i < kAddresses; ++i) {
#pragma unroll
      for (int j = 0; j < device::kWarpSize; j += kCopyRanks) {
        const int row = j + lane / Rows::kRowVecs;
        const int vec = lane % Rows::kRowVecs;
        const auto* const from =
            reinterpret_cast<const std::byte*>(__shfl_sync(device::kAllLanes, address[i], row));
        device::start_copy(rows.at(first + i * device::kWarpSize + row, vec),
                           from + vec * device::kVecBytes);
      }
    }
    device::wait_copies();
    device::publish_to_async_proxy();
    arrive_as_warp(&has[tile % kStages]);
  }
}

}  // namespace spectx::cu::attend::warpgroups
