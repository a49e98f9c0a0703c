// SPDX-License-Identifier: Apache-2.0
#include "blas.hpp"

#include <limits>

namespace spectx::cu {
namespace {

void check_blas(cublasStatus_t status,
                std::source_location where = std::source_location::current()) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw_cuda_error(std::string(cublasGetStatusName(status)) + ": " + cublasGetStatusString(status),
                   where);
}

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::f16:
      return CUDA_R_16F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f8_e4m3:
    case DType::i8:
    case DType::i32:
      break;
  }
  throw Unsupported(std::string("matmul: dtype ") + dtype_name(dtype) + " is not supported here");
}

int to_int(index_t size) {
  if (size > std::numeric_limits<int>::max()) throw Unsupported("matmul: a size above 2^31");
  return static_cast<int>(size);
}

}  // namespace

Blas::Blas() {
  check_blas(cublasCreate(&handle_));
  // Sums stay in float until they are written, also where a product is split along its inner side.
  check_blas(cublasSetMathMode(handle_, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION));
}

void Blas::matmul(const MatmulArgs& a, const Launch& on) {
  std::byte* const workspace = on.scratch.reserve(kWorkspaceBytes);
  check_blas(cublasSetStream(handle_, on.stream));
  check_blas(cublasSetWorkspace(handle_, workspace, static_cast<std::size_t>(kWorkspaceBytes)));
  const cudaDataType_t type = data_type(a.w.dtype);
  const float alpha = 1;
  // Row-major out = x w^T is column-major out^T = w x^T.
  check_blas(cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, to_int(a.w.shape[0]),
                          to_int(a.x.shape[0]), to_int(a.x.shape[1]), &alpha, a.w.data, type,
                          to_int(a.w.strides[0]), a.x.data, type, to_int(a.x.strides[0]), &a.beta,
                          a.out.data, type, to_int(a.out.strides[0]), CUBLAS_COMPUTE_32F,
                          CUBLAS_GEMM_DEFAULT));
}

}  // namespace spectx::cu
