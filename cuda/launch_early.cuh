// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels.hpp"

namespace spectx::cu {

/// Launches a kernel that begins with wait_for_kernel_ahead(): where the device can, its blocks
/// wait for the end of the kernel ahead instead of being launched after it.
template <class Params>
void launch_early(void (*kernel)(Params), dim3 grid, int threads, int shared_bytes,
                  const Params& params, const Launch& on) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = on.stream;
  config.attrs = &attribute;
  config.numAttrs = on.starts_early ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, params));
}

}  // namespace spectx::cu
