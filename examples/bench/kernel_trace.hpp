// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>

namespace spectx::bench {

/// Times of the kernels that CUDA graphs launch, by CUPTI. One at a time in a process.
class KernelTrace {
 public:
  /// From now on. Throws Unsupported in a build without SPECTX_ENABLE_CUPTI, Error where the driver
  /// lets nobody measure.
  KernelTrace();
  ~KernelTrace();
  KernelTrace(KernelTrace&&) = delete;

  /// Ends it. CSV, a line for each kernel: graph, launch, start and end in ns, blocks, name. Call
  /// it when the device has nothing to do.
  void write(std::ostream& out);
};

}  // namespace spectx::bench
