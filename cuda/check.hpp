// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <source_location>
#include <string>

#include "spectx/cuda/backend.hpp"

namespace spectx::cu {

[[noreturn]] inline void throw_cuda_error(const std::string& what,
                                          const std::source_location& where) {
  throw CudaError(std::string(where.function_name()) + ", line " + std::to_string(where.line()) +
                  ": " + what);
}

/// Throws CudaError unless `status` is success.
inline void check(cudaError_t status,
                  std::source_location where = std::source_location::current()) {
  if (status == cudaSuccess) return;
  throw_cuda_error(std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status),
                   where);
}

inline bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status));
  return status != cudaStreamCaptureStatusNone;
}

/// Lets this thread allocate while it captures a stream, in whatever mode the host began that.
class AllocationInCapture {
 public:
  AllocationInCapture() { check(cudaThreadExchangeStreamCaptureMode(&mode_)); }
  AllocationInCapture(const AllocationInCapture&) = delete;
  AllocationInCapture& operator=(const AllocationInCapture&) = delete;
  ~AllocationInCapture() { static_cast<void>(cudaThreadExchangeStreamCaptureMode(&mode_)); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // then the one before
};

/// Makes a device current for a scope.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&before_));
    if (before_ != device) check(cudaSetDevice(device));
    is_other_ = before_ != device;
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  ~DeviceGuard() {
    if (is_other_) static_cast<void>(cudaSetDevice(before_));
  }

 private:
  int before_ = 0;
  bool is_other_ = false;
};

}  // namespace spectx::cu
