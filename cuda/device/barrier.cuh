// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Barriers in shared memory whose phases are waited for by parity, as sm_90 and later have them.
namespace spectx::cu::device {

/// For phases of `arrivals` arrivals each. One thread makes it; others may use it behind
/// publish_barriers() and a barrier of the block.
__device__ inline void make_barrier(std::uint64_t* barrier, int arrivals) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void arrive(std::uint64_t* barrier) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
/// Waits for the end of a phase of this parity; of parity 1 a new barrier has ended one.
__device__ inline void wait_for_phase(std::uint64_t* barrier, std::uint32_t parity) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(barrier));
  std::uint32_t has_ended = 0;
  while (has_ended == 0) {
    asm volatile(
        "{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
        "selp.u32 %0, 1, 0, p;}"
        : "=r"(has_ended)
        : "r"(at), "r"(parity)
        : "memory");
  }
}

}  // namespace spectx::cu::device
