// SPDX-License-Identifier: Apache-2.0
// slot_of_token[token] = -1 for tokens >= first of a request, and their slots are free.
// Reads the slots of a request once: latency bound.
#include "kernels.hpp"
#include "slot_map.cuh"

namespace spectx::cu {
namespace {

// One block a KV head.
__global__ void __launch_bounds__(kSlotThreads)
    forget_slots_kernel(const __grid_constant__ KVPoolView pool, std::int32_t request,
                        std::int32_t first) {
  SlotMap(pool, request, blockIdx.x).forget_from(first);
}

}  // namespace

void launch_forget_slots(const ForgetSlotsArgs& a, const Launch& on) {
  forget_slots_kernel<<<grid_of(a.pool.kv_heads), kSlotThreads, 0, on.stream>>>(
      a.pool, a.request.value, static_cast<std::int32_t>(a.first));
  check(cudaGetLastError());
}

}  // namespace spectx::cu
