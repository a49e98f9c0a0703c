// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels.hpp"
#include "views.cuh"

namespace spectx::cu {

/// out = f(a, b) over matrices of one shape; out may be a or b.
template <class X>
struct ElementwiseParams {
  Rows<const X> a, b;
  Rows<X> out;
  index_t dim, pieces;
};

inline constexpr int kElementwiseThreads = 256;
inline constexpr index_t kElementwisePiece = 1024;  // columns of a block

// One block a piece of a row, so that one row has work for many.
template <class Op, class X>
__global__ void __launch_bounds__(kElementwiseThreads)
    elementwise_kernel(const __grid_constant__ ElementwiseParams<X> p) {
  const index_t i = blockIdx.x / p.pieces;
  const index_t begin = blockIdx.x % p.pieces * kElementwisePiece;
  const index_t end = begin + kElementwisePiece < p.dim ? begin + kElementwisePiece : p.dim;
  for (index_t d = begin + threadIdx.x; d < end; d += kElementwiseThreads) {
    p.out.row(i)[d] = device::from_float<X>(
        Op::apply(device::to_float(p.a.row(i)[d]), device::to_float(p.b.row(i)[d])));
  }
}

template <class Op>
void launch_elementwise(const TensorView& a, const TensorView& b, const TensorView& out,
                        const Launch& on) {
  if (out.size() == 0) return;
  const index_t pieces = div_up(out.shape[1], kElementwisePiece);
  dispatch_device_dtype(out.dtype, [&]<class X>() {
    const ElementwiseParams<X> p{rows_of<const X>(a), rows_of<const X>(b), rows_of<X>(out),
                                 out.shape[1], pieces};
    elementwise_kernel<Op>
        <<<grid_of(out.shape[0] * pieces), kElementwiseThreads, 0, on.stream>>>(p);
  });
  check(cudaGetLastError());
}

}  // namespace spectx::cu
