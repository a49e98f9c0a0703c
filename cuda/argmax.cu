// SPDX-License-Identifier: Apache-2.0
// out[i] = the lowest index of the largest logit of row i; NaN ranks below every number.
// Moves rows * vocabulary * activation bytes: memory bound.
#include "device/warp.cuh"
#include "kernels.hpp"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 1024;  // a row is long and rows are few
constexpr std::int32_t kNothing = 0x7fffffff;

struct Best {
  float logit;
  std::int32_t index;  // kNothing: no number was seen

  __device__ void take(float other, std::int32_t other_index) {
    if (!(other > logit || (other == logit && other_index < index))) return;
    logit = other;
    index = other_index;
  }
  __device__ void take_lanes() {
    for (int step = device::kWarpSize / 2; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(device::kAllLanes, logit, step);
      take(other, __shfl_xor_sync(device::kAllLanes, index, step));
    }
  }
};

template <class X>
struct Params {
  Rows<const X> logits;
  index_t vocabulary;
  std::int32_t* out;
};

// One block a row.
template <class X>
__global__ void __launch_bounds__(kBlockThreads)
    argmax_kernel(const __grid_constant__ Params<X> p) {
  __shared__ Best shared[kBlockThreads / device::kWarpSize];
  const X* const logits = p.logits.row(blockIdx.x);
  Best best{-INFINITY, kNothing};
  for (index_t i = threadIdx.x; i < p.vocabulary; i += kBlockThreads) {
    best.take(device::to_float(logits[i]), static_cast<std::int32_t>(i));
  }
  best.take_lanes();
  if (device::lane_index() == 0) shared[device::warp_index()] = best;
  __syncthreads();
  if (device::warp_index() != 0) return;
  best = shared[device::lane_index()];
  best.take_lanes();
  if (threadIdx.x == 0) p.out[blockIdx.x] = best.index == kNothing ? 0 : best.index;
}

}  // namespace

void launch_argmax(const ArgmaxArgs& a, const Launch& on) {
  if (a.logits.shape[0] == 0) return;
  dispatch_device_dtype(a.logits.dtype, [&]<class X>() {
    const Params<X> p{rows_of<const X>(a.logits), a.logits.shape[1], a.out.data};
    argmax_kernel<<<grid_of(a.logits.shape[0]), kBlockThreads, 0, on.stream>>>(p);
  });
  check(cudaGetLastError());
}

}  // namespace spectx::cu
