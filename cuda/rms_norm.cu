// SPDX-License-Identifier: Apache-2.0
// out = x / sqrt(mean(x^2) + eps) * weight
// Moves 2 rows * dim * activation bytes: memory bound; the second read of a row hits the cache.
#include "device/block.cuh"
#include "kernels.hpp"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 256;

template <class X, class W>
struct Params {
  Rows<const X> x;
  const W* weight;
  Rows<X> out;
  index_t dim;
  float eps;
};

// One block a row; a thread reads again what it alone overwrites.
template <class X, class W>
__global__ void __launch_bounds__(kBlockThreads)
    rms_norm_kernel(const __grid_constant__ Params<X, W> p) {
  __shared__ float shared[device::kMostWarps];
  const X* const x = p.x.row(blockIdx.x);
  X* const out = p.out.row(blockIdx.x);
  float sum = 0;
  for (index_t d = threadIdx.x; d < p.dim; d += kBlockThreads) {
    const float value = device::to_float(x[d]);
    sum = fmaf(value, value, sum);
  }
  const float mean = device::block_sum(sum, shared) / static_cast<float>(p.dim);
  const float scale = 1 / sqrtf(mean + p.eps);
  for (index_t d = threadIdx.x; d < p.dim; d += kBlockThreads) {
    out[d] = device::from_float<X>(device::to_float(x[d]) * device::to_float(p.weight[d]) * scale);
  }
}

}  // namespace

void launch_rms_norm(const RmsNormArgs& a, const Launch& on) {
  if (a.x.size() == 0) return;
  dispatch_device_dtype(a.x.dtype, [&]<class X>() {
    dispatch_device_dtype(a.weight.dtype, [&]<class W>() {
      const Params<X, W> p{rows_of<const X>(a.x), a.weight.as<const W>(), rows_of<X>(a.out),
                           a.x.shape[1], a.eps};
      rms_norm_kernel<<<grid_of(a.x.shape[0]), kBlockThreads, 0, on.stream>>>(p);
    });
  });
  check(cudaGetLastError());
}

}  // namespace spectx::cu
