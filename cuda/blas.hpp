// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cublas_v2.h>

#include "kernels.hpp"

namespace spectx::cu {

/// Matrix products by cuBLAS. Owns the library's handle, which belongs to the device that is
/// current at construction.
class Blas {
 public:
  Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;
  ~Blas() { static_cast<void>(cublasDestroy(handle_)); }

  /// x, w and out of one type; sums in float. Async.
  void matmul(const MatmulArgs& args, const Launch& on);

 private:
  cublasHandle_t handle_ = nullptr;
};

}  // namespace spectx::cu
