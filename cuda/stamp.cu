// SPDX-License-Identifier: Apache-2.0
// *device_ns = the device's clock when the stream gets there; unlike an event's, the time of a
// stamp can be read from a replayed graph.
#include "device/timer.cuh"
#include "kernels.hpp"

namespace spectx::cu {
namespace {

__global__ void stamp_kernel(std::uint64_t* device_ns) { *device_ns = device::global_time_ns(); }

}  // namespace

void launch_stamp(std::uint64_t* device_ns, const Launch& on) {
  stamp_kernel<<<1, 1, 0, on.stream>>>(device_ns);
  check(cudaGetLastError());
}

}  // namespace spectx::cu
