// SPDX-License-Identifier: Apache-2.0
// Row n of KV head h of the pages = (k[i, h], v[i, h]), n the token's position or its slot.
// Moves rows * kv_heads * (k_dim + v_dim) * (activation + row bytes): memory bound.
#include "device/block.cuh"
#include "device/vec.cuh"
#include "device/warp.cuh"
#include "kernels.hpp"
#include "kv_rows.cuh"
#include "launch_early.cuh"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 128;
constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;

template <class X>
struct Params {
  Rows<const X> k, v;  // v.data null: keys only
  index_t rows;
  BatchView batch;
  const std::int32_t* row_index;
  KVView to;
  const std::int32_t* slot_of_token;
  index_t max_length;
};

/// Where the K of the token at `position` of an item belongs; null: nowhere.
template <class X>
__device__ std::byte* place_of(const Params<X>& p, index_t item, index_t request, index_t head,
                               std::int32_t position) {
  const KVView& to = p.to;
  const bool reads_all = to.counts == nullptr || to.counts[item * to.kv_heads + head] == kAllTokens;
  const bool is_on_device = is_resident(to, request);
  std::int32_t n = position;
  if (!reads_all && !is_on_device) {
    n = p.slot_of_token[(request * to.kv_heads + head) * p.max_length + position];
  }
  if (n < 0) return nullptr;
  return kv_row(to, request, head, static_cast<std::uint32_t>(n), reads_all && !is_on_device);
}

template <class T, class X, int kElements>
__device__ void write(const X* from, index_t dim, std::byte* to) {
  for (index_t d = device::lane_index() * index_t{kElements}; d < dim;
       d += index_t{device::kWarpSize} * kElements) {
    const auto values = device::load_vec<X, kElements>(from + d);
    device::Vec<T, kElements> row;
#pragma unroll
    for (int e = 0; e < kElements; ++e) row.element[e] = device::from_float<T>(values[e]);
    device::store_vec(reinterpret_cast<T*>(to) + d, row);
  }
}

// One warp a row and KV head.
template <class T, class X, int kElements>
__global__ void __launch_bounds__(kBlockThreads)
    append_rows_kernel(const __grid_constant__ Params<X> p) {
  const index_t unit = index_t{blockIdx.x} * kBlockWarps + device::warp_index();
  const index_t i = unit / p.to.kv_heads;
  const index_t head = unit % p.to.kv_heads;
  if (i >= p.rows) return;
  device::wait_for_kernel_ahead();
  device::let_next_kernel_start();
  const index_t of = batch_row(p.row_index, i);
  if (of < 0) return;
  const index_t item = p.batch.item[of];
  const index_t request = p.batch.request[item];
  std::byte* const row = place_of(p, item, request, head, p.batch.position[of]);
  if (row == nullptr) return;
  write<T, X, kElements>(p.k.row(i, head), p.to.k_dim, row);
  if (p.v.data != nullptr)
    write<T, X, kElements>(p.v.row(i, head), p.to.v_dim, row + p.to.v_offset);
}

}  // namespace

void launch_append_rows(const AppendRowsArgs& a, const Launch& on) {
  if (a.k.size() == 0) return;
  const index_t units = a.k.shape[0] * a.to.kv_heads;
  dispatch_device_dtype(a.k.dtype, [&]<class X>() {
    const Params<X> p{rows_of<const X>(a.k), a.v ? rows_of<const X>(a.v) : Rows<const X>{},
                      a.k.shape[0],          view_of(*a.batch),
                      index_of(a.row_index), a.to,
                      a.slot_of_token,       a.max_length};
    dispatch_device_dtype(a.to.dtype, [&]<class T>() {
      constexpr int kWide = device::kVecBytes / static_cast<int>(std::max(sizeof(X), sizeof(T)));
      const bool is_wide =
          has_wide_rows(a.to) && is_aligned<X>(a.k, kWide) && (!a.v || is_aligned<X>(a.v, kWide));
      const auto kernel = is_wide ? append_rows_kernel<T, X, kWide> : append_rows_kernel<T, X, 1>;
      launch_early(kernel, grid_of(div_up(units, kBlockWarps)), kBlockThreads, 0, p, on);
    });
  });
}

}  // namespace spectx::cu
