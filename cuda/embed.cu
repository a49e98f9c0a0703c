// SPDX-License-Identifier: Apache-2.0
// out[i] = table[tokens[row_index[i]]], zeros for a token outside the table.
// Moves rows * hidden * (table + activation bytes): memory bound.
#include "kernels.hpp"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 256;

template <class T, class X>
struct Params {
  Rows<const T> table;
  index_t vocabulary;
  const std::int32_t* tokens;
  const std::int32_t* row_index;
  Rows<X> out;
  index_t hidden;
};

// One block a row.
template <class T, class X>
__global__ void __launch_bounds__(kBlockThreads)
    embed_kernel(const __grid_constant__ Params<T, X> p) {
  const index_t from = batch_row(p.row_index, blockIdx.x);
  if (from < 0) return;
  const index_t token = p.tokens[from];
  const bool is_known = token >= 0 && token < p.vocabulary;
  X* const out = p.out.row(blockIdx.x);
  for (index_t d = threadIdx.x; d < p.hidden; d += kBlockThreads) {
    out[d] = device::from_float<X>(is_known ? device::to_float(p.table.row(token)[d]) : 0.0F);
  }
}

}  // namespace

void launch_embed(const EmbedArgs& a, const Launch& on) {
  if (a.out.size() == 0) return;
  dispatch_device_dtype(a.table.dtype, [&]<class T>() {
    dispatch_device_dtype(a.out.dtype, [&]<class X>() {
      const Params<T, X> p{rows_of<const T>(a.table), a.table.shape[0],  a.tokens.data,
                           index_of(a.row_index),     rows_of<X>(a.out), a.out.shape[1]};
      embed_kernel<<<grid_of(a.out.shape[0]), kBlockThreads, 0, on.stream>>>(p);
    });
  });
  check(cudaGetLastError());
}

}  // namespace spectx::cu
