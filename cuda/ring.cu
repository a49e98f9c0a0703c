// SPDX-License-Identifier: Apache-2.0
// ring[request, position % ring_rows] = row, for the last rows of every item; and back:
// out[lead] = ring[request, (first - 1) % ring_rows].
// Moves rows * width * (activation + ring bytes): memory bound.
#include "kernels.hpp"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 256;

template <class X, class T>
struct StoreParams {
  Rows<const X> rows;
  BatchView batch;
  Rows<T> ring;
  index_t ring_rows, width;
};

// One block a row.
template <class X, class T>
__global__ void __launch_bounds__(kBlockThreads)
    store_ring_kernel(const __grid_constant__ StoreParams<X, T> p) {
  const index_t r = blockIdx.x;
  const index_t item = p.batch.item[r];
  if (r < p.batch.row_begin[item + 1] - p.ring_rows) return;
  const X* const from = p.rows.row(r);
  T* const to = p.ring.row(p.batch.request[item], p.batch.position[r] % p.ring_rows);
  for (index_t d = threadIdx.x; d < p.width; d += kBlockThreads) {
    to[d] = device::from_float<T>(device::to_float(from[d]));
  }
}

template <class T, class X>
struct LoadParams {
  Rows<const T> ring;
  BatchView batch;
  Rows<X> out;
  index_t ring_rows, width;
};

// One block a lead.
template <class T, class X>
__global__ void __launch_bounds__(kBlockThreads)
    load_ring_kernel(const __grid_constant__ LoadParams<T, X> p) {
  const index_t item = p.batch.item[p.batch.lead_row[blockIdx.x]];
  const index_t first = p.batch.first(item);
  X* const to = p.out.row(blockIdx.x);
  const T* const from =
      p.ring.row(p.batch.request[item], (first > 0 ? first - 1 : 0) % p.ring_rows);
  for (index_t d = threadIdx.x; d < p.width; d += kBlockThreads) {
    to[d] = device::from_float<X>(first > 0 ? device::to_float(from[d]) : 0.0F);
  }
}

}  // namespace

void launch_store_ring(const StoreRingArgs& a, const Launch& on) {
  if (a.batch->num_rows == 0 || a.rows.shape[1] == 0) return;
  dispatch_device_dtype(a.rows.dtype, [&]<class X>() {
    dispatch_device_dtype(a.ring.dtype, [&]<class T>() {
      const StoreParams<X, T> p{rows_of<const X>(a.rows), view_of(*a.batch), rows_of<T>(a.ring),
                                a.ring.shape[1], a.ring.shape[2]};
      store_ring_kernel<<<grid_of(a.batch->num_rows), kBlockThreads, 0, on.stream>>>(p);
    });
  });
  check(cudaGetLastError());
}

void launch_load_ring(const LoadRingArgs& a, const Launch& on) {
  const index_t leads = a.batch->lead_row.size;
  if (leads == 0 || a.out.shape[1] == 0) return;
  dispatch_device_dtype(a.ring.dtype, [&]<class T>() {
    dispatch_device_dtype(a.out.dtype, [&]<class X>() {
      const LoadParams<T, X> p{rows_of<const T>(a.ring), view_of(*a.batch), rows_of<X>(a.out),
                               a.ring.shape[1], a.ring.shape[2]};
      load_ring_kernel<<<grid_of(leads), kBlockThreads, 0, on.stream>>>(p);
    });
  });
  check(cudaGetLastError());
}

}  // namespace spectx::cu
