// SPDX-License-Identifier: Apache-2.0
// out = x / sqrt(mean(x^2) + eps) * weight
// Moves 2 rows * dim * activation bytes: memory bound; the second read of a row hits the cache.
#include "device/block.cuh"
#include "device/vec.cuh"
#include "device/warp.cuh"
#include "kernels.hpp"
#include "launch_early.cuh"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kMostThreads = 512;  // one load a thread for 4,096 dims of a half type

template <class X, class W>
struct Params {
  Rows<const X> x;
  const W* weight;
  Rows<X> out;
  index_t heads, dim;
  float eps;
};

// One block a row and head; a thread reads again what it alone overwrites.
template <class X, class W, int kElements>
__global__ void __launch_bounds__(kMostThreads)
    rms_norm_kernel(const __grid_constant__ Params<X, W> p) {
  __shared__ float shared[device::kMostWarps];
  const index_t step = index_t{blockDim.x} * kElements;
  const index_t begin = index_t{threadIdx.x} * kElements;
  const X* const x = p.x.row(blockIdx.x / p.heads, blockIdx.x % p.heads);
  X* const out = p.out.row(blockIdx.x / p.heads, blockIdx.x % p.heads);
  float sum = 0;
  // On its way to the cache while the kernel ahead ends.
  if (device::warp_index() == 0) device::prefetch(p.weight, p.dim * index_t{sizeof(W)});
  device::wait_for_kernel_ahead();
  device::let_next_kernel_start();
  for (index_t d = begin; d < p.dim; d += step) {
    const auto values = device::load_vec<X, kElements>(x + d);
#pragma unroll
    for (int e = 0; e < kElements; ++e) sum = fmaf(values[e], values[e], sum);
  }
  const float mean = device::block_sum(sum, shared) / static_cast<float>(p.dim);
  const float scale = 1 / sqrtf(mean + p.eps);
  for (index_t d = begin; d < p.dim; d += step) {
    auto values = device::load_vec<X, kElements>(x + d);
    const auto weights = device::load_vec<W, kElements>(p.weight + d);
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      values.element[e] = device::from_float<X>(values[e] * weights[e] * scale);
    }
    device::store_vec(out + d, values);
  }
}

}  // namespace

void launch_rms_norm(const RmsNormArgs& a, const Launch& on) {
  if (a.x.size() == 0) return;
  dispatch_device_dtype(a.x.dtype, [&]<class X>() {
    dispatch_device_dtype(a.weight.dtype, [&]<class W>() {
      constexpr int kWide = 8;  // for all types, so that they add in the same order
      const Params<X, W> p{rows_of<const X>(a.x), a.weight.as<const W>(),
                           rows_of<X>(a.out),     a.x.rank > 2 ? a.x.shape[1] : 1,
                           a.weight.shape[0],     a.eps};
      const bool is_wide = p.dim % kWide == 0 && is_aligned<X>(a.x, kWide) &&
                           is_aligned<X>(a.out, kWide) && is_aligned<W>(a.weight, kWide);
      const index_t warps = div_up(p.dim, index_t{device::kWarpSize} * (is_wide ? kWide : 1));
      const auto threads =
          std::min(kMostThreads, static_cast<int>(std::min(warps, index_t{device::kMostWarps})) *
                                     device::kWarpSize);
      launch_early(is_wide ? rms_norm_kernel<X, W, kWide> : rms_norm_kernel<X, W, 1>,
                   grid_of(a.x.shape[0] * p.heads), threads, 0, p, on);
    });
  });
}

}  // namespace spectx::cu
