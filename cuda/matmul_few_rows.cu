// SPDX-License-Identifier: Apache-2.0
// out = x w^T + beta out, for few rows of x.
// Moves in * out * weight bytes once for every 8 rows: memory bound. x is read from the cache.
#include <type_traits>

#include "device/block.cuh"
#include "device/vec.cuh"
#include "device/warp.cuh"
#include "kernels.hpp"
#include "launch_early.cuh"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;
constexpr index_t kMostRows = 8;
constexpr unsigned kBlocksAtOnce = 2048 / kBlockThreads;  // of a multiprocessor
constexpr index_t kEarlyBytes = 2048;                     // of a column

template <class X, class W>
struct Params {
  Rows<const X> x;
  Rows<const W> w;
  Rows<X> out;
  index_t rows, in, features;
  float beta;
  unsigned early_blocks;  // that may start before the kernel ahead has ended
};

// One warp an output column, for kRows rows; lanes stride over the inner dimension, kElements at a
// time. A row's products are added in the same order whatever kRows is.
template <class X, class W, int kElements, int kRows>
__global__ void __launch_bounds__(kBlockThreads)
    matmul_few_rows_kernel(const __grid_constant__ Params<X, W> p) {
  constexpr index_t kStep = index_t{device::kWarpSize} * kElements;
  const index_t column = index_t{blockIdx.x} * kBlockWarps + device::warp_index();
  if (column >= p.features) return;
  const W* const w = p.w.row(column);
  // On their way to the cache while the kernel ahead ends.
  if (blockIdx.x < p.early_blocks) {
    device::prefetch(w, min(p.in * index_t{sizeof(W)}, kEarlyBytes));
  }
  device::wait_for_kernel_ahead();
  device::let_next_kernel_start();
  const X* x[kRows];
  float sum[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    x[r] = p.x.row(min(index_t{r}, p.rows - 1));
    sum[r] = 0;
  }
  const index_t whole = p.in / kElements * kElements;
#pragma unroll 4
  for (index_t i = device::lane_index() * kElements; i < whole; i += kStep) {
    const auto weights = device::load_vec<W, kElements>(w + i);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const auto values = device::load_vec<X, kElements>(x[r] + i);
#pragma unroll
      for (int e = 0; e < kElements; ++e) sum[r] = fmaf(values[e], weights[e], sum[r]);
    }
  }
  for (index_t i = whole + device::lane_index(); i < p.in; i += device::kWarpSize) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      sum[r] = fmaf(device::to_float(x[r][i]), device::to_float(w[i]), sum[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float total = device::group_sum(sum[r]);
    if (device::lane_index() != 0 || r >= p.rows) continue;
    X* const out = p.out.row(r) + column;
    const float before = p.beta == 0 ? 0.0F : p.beta * device::to_float(*out);
    *out = device::from_float<X>(before + total);
  }
}

template <class X, class W>
void launch_rows(const MatmulArgs& a, const Launch& on) {
  constexpr int kWide = device::kVecBytes / static_cast<int>(sizeof(W));
  const Params<X, W> p{rows_of<const X>(a.x),
                       rows_of<const W>(a.w),
                       rows_of<X>(a.out),
                       a.x.shape[0],
                       a.x.shape[1],
                       a.w.shape[0],
                       a.beta,
                       static_cast<unsigned>(on.multiprocessors) * kBlocksAtOnce};
  const dim3 grid = grid_of(div_up(p.features, kBlockWarps));
  const bool is_wide = is_aligned<X>(a.x, kWide) && is_aligned<W>(a.w, kWide);
  const auto run = [&]<int kElements, int kRows>() {
    launch_early(matmul_few_rows_kernel<X, W, kElements, kRows>, grid, kBlockThreads, 0, p, on);
  };
  if (!is_wide) {
    run.template operator()<1, kMostRows>();
  } else if (p.rows == 1) {
    run.template operator()<kWide, 1>();
  } else if constexpr (std::is_same_v<X, float>) {
    p.rows <= 4 ? run.template operator()<kWide, 4>() : run.template operator()<kWide, kMostRows>();
  } else {
    run.template operator()<1, kMostRows>();  // of nothing: cuBLAS has the others
  }
}

}  // namespace

void launch_matmul_few_rows(const MatmulArgs& a, const Launch& on) {
  if (a.out.size() == 0) return;
  for (index_t first = 0; first < a.x.shape[0]; first += kMostRows) {
    MatmulArgs part = a;
    const index_t count = std::min(kMostRows, a.x.shape[0] - first);
    part.x = rows(a.x, first, count);
    part.out = rows(a.out, first, count);
    dispatch_device_dtype(a.w.dtype, [&]<class W>() {
      if (a.x.dtype == DType::f32) {
        launch_rows<float, W>(part, on);
      } else if (a.x.dtype == a.w.dtype) {
        launch_rows<W, W>(part, on);
      } else {
        throw Unsupported("matmul: activations must be f32 or of the weights' type");
      }
    });
  }
}

}  // namespace spectx::cu
