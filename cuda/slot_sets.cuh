// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/warp.cuh"
#include "views.cuh"

// What a block knows of a KV head's slots and selected ids in shared memory.
namespace spectx::cu::slots {

inline constexpr int kThreads = 512;  // one block a KV head: its steps wait for one another
inline constexpr int kWarps = kThreads / device::kWarpSize;
inline constexpr int kRanks = 4;  // neighbours, of a thread at a time
inline constexpr int kSlots = 8;

/// Ages of slots in shared memory. Neighbours are kStride apart, so that a thread that reads kSlots
/// of them meets no other in its bank, and neither do threads that write one each.
struct Ages {
  static constexpr int kChunk = kThreads * kSlots;
  static constexpr int kStride = kThreads + 4;
  std::uint32_t* data;  // null: no room

  static constexpr index_t words(index_t slots) {
    return (slots + kChunk - 1) / kChunk * (kStride * kSlots);
  }
  /// Of slot first + i, first a multiple of kSlots and i less.
  __device__ std::uint32_t& at(std::int32_t first, std::uint32_t i) const {
    const auto n = static_cast<std::uint32_t>(first);
    return data[n / kChunk * (kStride * kSlots) + i * kStride + n % kChunk / kSlots];
  }
  __device__ std::uint32_t& operator[](std::int32_t slot) const {
    return at(slot, static_cast<std::uint32_t>(slot) % kSlots);
  }
};

/// The ids as bits in shared memory.
struct TokenSet {
  static constexpr int kTokens = 32;  // of a word
  std::uint32_t* bits;                // null: no room
  std::uint16_t* first;               // rank of the first id of a word; only of words with ids

  __device__ void clear(std::int32_t words) const {
    for (auto word = static_cast<std::int32_t>(threadIdx.x); word < words; word += kThreads) {
      bits[word] = 0;
    }
  }
  __device__ void add(std::int32_t id, std::int32_t rank, std::int32_t id_before) const {
    atomicOr(&bits[word_of(id)], bit_of(id));
    if (rank == 0 || word_of(id_before) != word_of(id)) {
      first[word_of(id)] = static_cast<std::uint16_t>(rank);
    }
  }
  /// The rank of a token, or -1, as for token -1. Reads `first` of every word: without a branch.
  __device__ std::int32_t rank(std::int32_t token) const {
    const std::uint32_t at = token < 0 ? 0 : word_of(token);
    const std::uint32_t word = bits[at];
    const std::int32_t of_word = first[at];
    const std::uint32_t bit = token < 0 ? 0 : bit_of(token);
    return (word & bit) == 0 ? -1 : of_word + __popc(word & (bit - 1));
  }
  static __device__ std::uint32_t word_of(std::int32_t token) {
    return static_cast<std::uint32_t>(token) / kTokens;
  }
  static __device__ std::uint32_t bit_of(std::int32_t token) {
    return 1U << static_cast<std::uint32_t>(token) % kTokens;
  }
};

}  // namespace spectx::cu::slots
