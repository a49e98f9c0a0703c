// SPDX-License-Identifier: Apache-2.0
// host runs of tokens [durable, length) = their rows in slots, of every offloaded group of items
// that select and are due (is_write_due); then durable = length.
// Moves rows * kv_heads * run.bytes_of(layers) over the host's link.
#include "host_rows.cuh"
#include "kernels.hpp"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;
constexpr index_t kItemBlocks = 8;   // a write batch of one item
constexpr index_t kMostBlocks = 16;  // the rest of the device computes meanwhile

struct Params {
  BatchView batch;
  KVPoolView pool;
  index_t write_batch;
};

/// Rows [first, last) of an item go to the host tier.
struct Waiting {
  index_t request, resident;
  std::int32_t first, last;

  __device__ Waiting(const Params& p, index_t item)
      : request(p.batch.request[item]),
        resident(p.pool.resident_groups[request]),
        first(p.pool.durable[request]),
        last(p.batch.length[item]) {
    const index_t place = p.pool.run.is_lossy ? 0 : request % p.write_batch;
    const bool is_due = (last + place) / p.write_batch > (first + place) / p.write_batch;
    if (p.batch.selects[item] == 0 || resident >= p.pool.groups || !is_due) last = first;
  }
};

// Warps of all blocks take (group, token, head) in turn, item after item.
template <class Rows>
__global__ void __launch_bounds__(kBlockThreads)
    scatter_rows_kernel(const __grid_constant__ Params p) {
  const KVPoolView& pool = p.pool;
  for (index_t item = 0; item < p.batch.items; ++item) {
    const Waiting w(p, item);
    const index_t tokens = w.last - w.first;
    const index_t units = (pool.groups - w.resident) * tokens * pool.kv_heads;
    for (index_t i = index_t{blockIdx.x} * kBlockWarps + device::warp_index();
         tokens > 0 && i < units; i += index_t{gridDim.x} * kBlockWarps) {
      const index_t head = i % pool.kv_heads;
      const index_t token = w.first + i / pool.kv_heads % tokens;
      const index_t group = w.resident + i / pool.kv_heads / tokens;
      const std::int32_t slot = slot_of(pool, w.request, head, token);
      if (slot < 0) continue;
      const LayerRows from = device_rows(pool, pages_of(pool, w.request, group), head,
                                         static_cast<std::uint32_t>(slot));
      const RunLayers to{host_run(pool, host_pages_of(pool, w.request, group), head,
                                  static_cast<std::uint32_t>(token)),
                         0, static_cast<int>(layers_of(pool, group))};
      Rows::store(pool, from, to);
    }
  }
}

// A thread an item, once every row is there.
__global__ void __launch_bounds__(kBlockThreads)
    advance_durable_kernel(const __grid_constant__ Params p) {
  const index_t item = index_t{blockIdx.x} * kBlockThreads + threadIdx.x;
  if (item >= p.batch.items) return;
  const Waiting w(p, item);
  p.pool.durable[w.request] = w.last;
}

}  // namespace

void launch_scatter_rows(const ScatterRowsArgs& a, const Launch& on) {
  const index_t items = static_cast<index_t>(a.batch->items.size());
  if (items == 0) return;
  const Params p{view_of(*a.batch), a.pool, a.write_batch};
  const index_t blocks = std::min(items * kItemBlocks, kMostBlocks);
  dispatch_rows(a.pool, true, [&]<class Rows>() {
    scatter_rows_kernel<Rows><<<grid_of(blocks), kBlockThreads, 0, on.stream>>>(p);
  });
  check(cudaGetLastError());
  advance_durable_kernel<<<grid_of(div_up(items, kBlockThreads)), kBlockThreads, 0, on.stream>>>(p);
  check(cudaGetLastError());
}

}  // namespace spectx::cu
