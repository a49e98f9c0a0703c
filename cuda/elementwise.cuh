// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/block.cuh"
#include "device/vec.cuh"
#include "kernels.hpp"
#include "launch_early.cuh"
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

// One block a piece of a row, one load a thread, so that one row has work for many.
template <class Op, class X, int kElements>
__global__ void __launch_bounds__(kElementwiseThreads)
    elementwise_kernel(const __grid_constant__ ElementwiseParams<X> p) {
  const index_t i = blockIdx.x / p.pieces;
  const index_t d =
      (blockIdx.x % p.pieces * kElementwiseThreads + threadIdx.x) * index_t{kElements};
  if (d >= p.dim) return;
  device::wait_for_kernel_ahead();
  device::let_next_kernel_start();
  const auto a = device::load_vec<X, kElements>(p.a.row(i) + d);
  const auto b = device::load_vec<X, kElements>(p.b.row(i) + d);
  device::Vec<X, kElements> out;
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
    out.element[e] = device::from_float<X>(Op::apply(a[e], b[e]));
  }
  device::store_vec(p.out.row(i) + d, out);
}

template <class Op>
void launch_elementwise(const TensorView& a, const TensorView& b, const TensorView& out,
                        const Launch& on) {
  if (out.size() == 0) return;
  dispatch_device_dtype(out.dtype, [&]<class X>() {
    constexpr int kWide = device::kVecBytes / static_cast<int>(sizeof(X));
    const index_t dim = out.shape[1];
    const bool is_wide = dim % kWide == 0 && is_aligned<X>(a, kWide) && is_aligned<X>(b, kWide) &&
                         is_aligned<X>(out, kWide);
    const index_t pieces = div_up(dim, index_t{kElementwiseThreads} * (is_wide ? kWide : 1));
    const ElementwiseParams<X> p{rows_of<const X>(a), rows_of<const X>(b), rows_of<X>(out), dim,
                                 pieces};
    launch_early(is_wide ? elementwise_kernel<Op, X, kWide> : elementwise_kernel<Op, X, 1>,
                 grid_of(out.shape[0] * pieces), kElementwiseThreads, 0, p, on);
  });
}

}  // namespace spectx::cu
