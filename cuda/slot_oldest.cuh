// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "slot_victims.cuh"

// The slots that missing ids take, one age after the other: as a rule a few ages have them all.
namespace spectx::cu::slots {

inline constexpr int kMostAges = 8;  // slots of more are sorted by digits instead
inline constexpr std::uint32_t kManyAges = ~0U;

/// to[0 .. returned): the first `wanted` slots to take, or all; `oldest` is the greatest age.
/// The ages are in shared memory. kManyAges: they are of more than kMostAges.
template <bool kFits>
__device__ std::uint32_t take_oldest(const Task<kFits>& t, std::uint32_t oldest,
                                     std::uint32_t wanted, std::int32_t* to, Shared& shared) {
  std::uint32_t found = 0;
  unsigned calls = 0;
  int ages = 0;
  const bool is_one = t.map.slots <= Ages::kChunk;
  std::uint32_t own[kSlots];
  const auto load = [&](std::int32_t slot) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) own[i] = t.kept.at(slot, static_cast<std::uint32_t>(i));
  };
  if (is_one) load(static_cast<std::int32_t>(threadIdx.x) * kSlots);
  for (std::uint32_t age = oldest; age > 0 && found < wanted;) {
    if (ages++ == kMostAges) return kManyAges;
    std::uint32_t next_age = 0;
    for (std::int32_t base = 0; base < t.map.slots; base += Ages::kChunk) {
      const std::int32_t slot = base + static_cast<std::int32_t>(threadIdx.x) * kSlots;
      if (!is_one) load(slot);
      std::uint32_t count = 0;
      std::uint32_t below = 0;
#pragma unroll
      for (int i = 0; i < kSlots; ++i) {
        count += own[i] == age ? 1 : 0;
        below = max(below, own[i] < age ? own[i] : 0);
      }
      const Tally tally(count, below, shared.tally[calls++ % 2]);
      std::uint32_t place = found + tally.before;
      if (count > 0) {
#pragma unroll
        for (int i = 0; i < kSlots; ++i) {
          if (own[i] == age && place < wanted) to[place] = slot + i;
          place += own[i] == age ? 1 : 0;
        }
      }
      found += tally.total;
      next_age = max(next_age, tally.largest);
    }
    age = next_age;
  }
  __syncthreads();
  return min(found, wanted);
}

}  // namespace spectx::cu::slots
