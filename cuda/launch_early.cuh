// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels.hpp"

namespace spectx::cu {

/// Launches a kernel that begins with wait_for_kernel_ahead(): where the device can, its blocks
/// wait for the end of the kernel ahead instead of being launched after it. `cluster` neighbours of
/// the grid's first dimension run side by side; more than one only where the device has clusters.
template <class Params>
void launch_early(void (*kernel)(Params), dim3 grid, int threads, int shared_bytes,
                  const Params& params, const Launch& on, unsigned cluster = 1) {
  cudaLaunchAttribute attributes[2]{};
  unsigned count = 0;
  if (on.starts_early) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {cluster, 1, 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = on.stream;
  config.attrs = attributes;
  config.numAttrs = count;
  check(cudaLaunchKernelEx(&config, kernel, params));
}

}  // namespace spectx::cu
