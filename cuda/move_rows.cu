// SPDX-License-Identifier: Apache-2.0
// Rows [first, last) of one group of one request, from one place to another; slots hold only the
// tokens that the slot map names.
// Moves tokens * kv_heads * layers rows: bound by the host's link, or by memory.
#include "host_rows.cuh"
#include "kernels.hpp"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;
constexpr index_t kLinkBlocks = 32;  // fill the link, for a prompt's step that waits
constexpr index_t kTierBlocks = 2;  // of a group that changes tier: the steps beside need the link
constexpr index_t kTierBlocksConverted = 4;  // to a smaller type, which takes longer
constexpr index_t kBlocksPerMultiprocessor = 8;

struct Params {
  KVPoolView pool;
  index_t request;
  RowPlace from, to;
  index_t first, last;  // tokens
  int first_layer, layers;
};

__device__ inline bool is_slots(const RowPlace& place) {
  return place.kind == RowPlace::Kind::slots;
}

/// A place on the device.
__device__ LayerRows find(const Params& p, const RowPlace& place, index_t head, index_t token,
                          std::int32_t slot) {
  const std::uint32_t n = static_cast<std::uint32_t>(is_slots(place) ? slot : token);
  const index_t layer = place.kind == RowPlace::Kind::staging ? 0 : p.first_layer;
  return device_rows(p.pool, place.pages, head, n, layer);
}

__device__ inline RunLayers find_run(const Params& p, const RowPlace& place, index_t head,
                                     index_t token) {
  return {host_run(p.pool, place.pages, head, static_cast<std::uint32_t>(token)), p.first_layer,
          p.layers};
}

// One warp a token and KV head.
template <class Rows>
__global__ void __launch_bounds__(kBlockThreads)
    move_rows_kernel(const __grid_constant__ Params p) {
  const index_t units = (p.last - p.first) * p.pool.kv_heads;
  const bool uses_slots = is_slots(p.from) || is_slots(p.to);
  for (index_t i = index_t{blockIdx.x} * kBlockWarps + device::warp_index(); i < units;
       i += index_t{gridDim.x} * kBlockWarps) {
    const index_t head = i % p.pool.kv_heads;
    const index_t token = p.first + i / p.pool.kv_heads;
    const std::int32_t slot = uses_slots ? slot_of(p.pool, p.request, head, token) : 0;
    if (slot < 0) continue;
    if (p.from.kind == RowPlace::Kind::host) {
      Rows::load(p.pool, find_run(p, p.from, head, token), find(p, p.to, head, token, slot));
    } else if (p.to.kind == RowPlace::Kind::host) {
      Rows::store(p.pool, find(p, p.from, head, token, slot), find_run(p, p.to, head, token));
    } else if constexpr (Rows::kIsExact) {
      Rows::copy(p.pool, find(p, p.from, head, token, slot), find(p, p.to, head, token, slot),
                 p.layers);
    }
  }
}

}  // namespace

void launch_move_rows(const MoveRowsArgs& a, const Launch& on) {
  if (a.first >= a.last) return;
  const index_t layers = a.layer < 0 ? a.pool.layers_of(a.group) : 1;
  const Params p{a.pool,
                 a.request.value,
                 a.from,
                 a.to,
                 a.first,
                 a.last,
                 a.layer < 0 ? 0 : static_cast<int>(a.layer),
                 static_cast<int>(layers)};
  const bool comes_back = a.from.kind == RowPlace::Kind::host;
  const bool uses_link = comes_back || a.to.kind == RowPlace::Kind::host;
  dispatch_rows(a.pool, uses_link, [&]<class Rows>() {
    const bool converts = !Rows::kIsExact && !comes_back;
    const index_t most = !uses_link     ? on.multiprocessors * kBlocksPerMultiprocessor
                         : a.layer >= 0 ? kLinkBlocks
                         : converts     ? kTierBlocksConverted
                                        : kTierBlocks;
    const index_t blocks =
        std::min(div_up((a.last - a.first) * a.pool.kv_heads, kBlockWarps), most);
    move_rows_kernel<Rows><<<grid_of(blocks), kBlockThreads, 0, on.stream>>>(p);
  });
  check(cudaGetLastError());
}

}  // namespace spectx::cu
