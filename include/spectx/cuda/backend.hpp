// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "spectx/backend.hpp"

namespace spectx::cu {

/// A call of the CUDA runtime or of cuBLAS failed; says which, where and why. A kernel's fault
/// shows at a later call and makes every one after it fail too.
class CudaError : public Error {
 public:
  explicit CudaError(const std::string& what) : Error(what, ErrorCode::device) {}
};

struct CudaOptions {
  int device = 0;     // ordinal, as cudaSetDevice counts
  TraceSink trace{};  // spans of the calls, which return before the device is done; a pipeline's
                      // report() adds the device's own
  bool has_nvtx_ranges = false;  // the spans of the calls are NVTX ranges too; Unsupported where
                                 // the toolkit had no NVTX
};

/// NVIDIA GPUs that this process can use; 0 without a driver.
int device_count() noexcept;

/// Every operation on one GPU. Activations have the weights' type (f32, f16, bf16), or are f32 over
/// any weights; rows may have another type than both. Device memory is cudaMalloc's, host memory
/// pinned and mapped, so that kernels reach it by the same address. Page addresses and row strides
/// that are multiples of 16 bytes are read fastest. Heads of up to 256 dims.
///
/// Each stream has a scratch memory of its own; a call that makes it grow waits for the stream.
/// Destroying a stream waits for it.
///
/// Operations can be captured in a CUDA graph, in any mode, on a stream that has been used before.
/// Such a graph uses the stream's scratch: launch it on the same stream, and destroy it before the
/// backend.
///
/// Throws InvalidArgument for a device that is not there, CudaError for one that cannot be used.
std::unique_ptr<Backend> make_backend(const CudaOptions& options = {});

}  // namespace spectx::cu
