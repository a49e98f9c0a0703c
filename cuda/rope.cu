// SPDX-License-Identifier: Apache-2.0
// (x[i], x[i + dim / 2]) turned by (position + position_offset) * frequency[i], times magnitude.
// Moves 2 rows * heads * dim * activation bytes: memory bound.
#include "device/block.cuh"
#include "device/vec.cuh"
#include "kernels.hpp"
#include "launch_early.cuh"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 256;
static_assert(kLimits.most_rope_dim * 4 <= 32 << 10);  // of shared memory: cosines and sines

template <class X>
struct Params {
  Rows<X> x;
  index_t heads, block_heads, half;
  const std::int32_t* position;
  const std::int32_t* row_index;
  const float* frequency;
  float magnitude;
  index_t position_offset;
};

// One block a row and some heads: the row's sines once, then kElements pairs a thread at a time.
template <class X, int kElements>
__global__ void __launch_bounds__(kBlockThreads) rope_kernel(const __grid_constant__ Params<X> p) {
  extern __shared__ float2 cosine_and_sine[];  // [half]
  constexpr double kTurn = 6.283185307179586;
  // Copies alone write the batch and the frequencies, so no kernel ahead is waited for.
  const index_t of = batch_row(p.row_index, blockIdx.x);
  const double position =
      of < 0 ? 0.0 : static_cast<double>(p.position[of] + p.position_offset);
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
  device::wait_for_kernel_ahead();
  device::let_next_kernel_start();
  if (of < 0) return;
  const index_t first_head = blockIdx.y * p.block_heads;
  const index_t heads = min(p.block_heads, p.heads - first_head);
  const index_t head_steps = p.half / kElements;
  for (index_t i = threadIdx.x; i < heads * head_steps; i += kBlockThreads) {
    const index_t j = i % head_steps * kElements;
    X* const x = p.x.row(blockIdx.x, first_head + i / head_steps) + j;
    auto low = device::load_vec<X, kElements>(x);
    auto high = device::load_vec<X, kElements>(x + p.half);
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const float2 turn = cosine_and_sine[j + e];
      const float a = low[e];
      const float b = high[e];
      low.element[e] = device::from_float<X>(a * turn.x - b * turn.y);
      high.element[e] = device::from_float<X>(b * turn.x + a * turn.y);
    }
    device::store_vec(x, low);
    device::store_vec(x + p.half, high);
  }
}

template <class X, int kElements>
void launch_pairs(Params<X> p, index_t rows, const Launch& on) {
  const index_t steps = p.half / kElements;
  p.block_heads = std::min(p.heads, div_up(index_t{kBlockThreads}, steps));
  dim3 grid = grid_of(rows);
  grid.y = static_cast<unsigned>(div_up(p.heads, p.block_heads));
  launch_early(rope_kernel<X, kElements>, grid, kBlockThreads,
               static_cast<int>(p.half * index_t{sizeof(float2)}), p, on);
}

}  // namespace

void launch_rope(const RopeArgs& a, const Launch& on) {
  if (a.x.size() == 0) return;
  const index_t half = a.x.shape[2] / 2;
  dispatch_device_dtype(a.x.dtype, [&]<class X>() {
    constexpr int kWide = device::kVecBytes / static_cast<int>(sizeof(X));
    const Params<X> p{rows_of<X>(a.x),
                      a.x.shape[1],
                      0,
                      half,
                      a.position.data,
                      index_of(a.row_index),
                      a.frequency.data,
                      a.magnitude,
                      a.position_offset};
    if (half % kWide == 0 && is_aligned<X>(a.x, kWide)) {
      launch_pairs<X, kWide>(p, a.x.shape[0], on);
    } else {
      launch_pairs<X, 1>(p, a.x.shape[0], on);
    }
  });
}

}  // namespace spectx::cu
