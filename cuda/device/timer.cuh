// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace spectx::cu::device {

/// Nanoseconds of a clock that all multiprocessors share.
__device__ inline std::uint64_t global_time_ns() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

}  // namespace spectx::cu::device
