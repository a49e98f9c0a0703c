// SPDX-License-Identifier: Apache-2.0
// (x[i], x[i + dim / 2]) turned by (position + position_offset) * frequency[i], times magnitude.
// Moves 2 rows * heads * dim * activation bytes: memory bound.
#include "kernels.hpp"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 256;
constexpr index_t kMostPairs = 4096;  // whose sines fit in 32 KiB of shared memory

template <class X>
struct Params {
  Rows<X> x;
  index_t heads, half;
  const std::int32_t* position;
  const std::int32_t* row_index;
  const float* frequency;
  float magnitude;
  index_t position_offset;
};

// One block a row: its sines once, for all heads.
template <class X>
__global__ void __launch_bounds__(kBlockThreads) rope_kernel(const __grid_constant__ Params<X> p) {
  extern __shared__ float2 cosine_and_sine[];  // [half]
  constexpr double kTurn = 6.283185307179586;
  const index_t of = batch_row(p.row_index, blockIdx.x);
  if (of < 0) return;
  const double position = static_cast<double>(p.position[of] + p.position_offset);
  for (index_t j = threadIdx.x; j < p.half; j += kBlockThreads) {
    // Whole turns go in double: position * frequency in float is off by 0.01 at position 100,000.
    const double turns = position * static_cast<double>(p.frequency[j]) / kTurn;
    const float angle = static_cast<float>((turns - floor(turns + 0.5)) * kTurn);
    float sine = 0;
    float cosine = 0;
    sincosf(angle, &sine, &cosine);
    cosine_and_sine[j] = make_float2(cosine * p.magnitude, sine * p.magnitude);
  }
  __syncthreads();
  for (index_t i = threadIdx.x; i < p.heads * p.half; i += kBlockThreads) {
    const index_t j = i % p.half;
    X* const x = p.x.row(blockIdx.x, i / p.half) + j;
    const float low = device::to_float(x[0]);
    const float high = device::to_float(x[p.half]);
    const float2 turn = cosine_and_sine[j];
    x[0] = device::from_float<X>(low * turn.x - high * turn.y);
    x[p.half] = device::from_float<X>(high * turn.x + low * turn.y);
  }
}

}  // namespace

void launch_rope(const RopeArgs& a, const Launch& on) {
  if (a.x.size() == 0) return;
  const index_t half = a.x.shape[2] / 2;
  if (half > kMostPairs) throw Unsupported("rope: heads of more than 8192 dims");
  dispatch_device_dtype(a.x.dtype, [&]<class X>() {
    const Params<X> p{rows_of<X>(a.x),       a.x.shape[1],     half,        a.position.data,
                      index_of(a.row_index), a.frequency.data, a.magnitude, a.position_offset};
    const auto shared_bytes = static_cast<std::size_t>(half) * sizeof(float2);
    rope_kernel<<<grid_of(a.x.shape[0]), kBlockThreads, shared_bytes, on.stream>>>(p);
  });
  check(cudaGetLastError());
}

}  // namespace spectx::cu
