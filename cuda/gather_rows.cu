// SPDX-License-Identifier: Apache-2.0
// device row of slot miss_slots[i] = host run of token miss_ids[i], some layers of one group.
// Moves misses * run.bytes_of(layers) over the host's link, which is the limit; few blocks reach it
// if a run has 2 KiB.
#include "device/block.cuh"
#include "device/cluster.cuh"
#include "host_rows.cuh"
#include "kernels.hpp"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 1024;  // 32 runs in flight a block
constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;

struct Params {
  BatchView batch;
  StepLists lists;
  KVPoolView pool;
  index_t group;
  int first_layer, layers;
};

/// Misses of an item and KV head in the group.
__device__ inline std::int32_t misses_of(const Params& p, index_t task) {
  if (task >= p.batch.items * p.pool.kv_heads) return 0;
  const index_t item = task / p.pool.kv_heads;
  const bool is_fetched =
      p.batch.selects[item] != 0 && p.group >= p.pool.resident_groups[p.batch.request[item]];
  return is_fetched ? p.lists.miss_counts[task] : 0;
}

// Warps of all blocks take misses in turn, in the order of items, heads and ids. kBlockThreads
// items and heads at a time are laid end to end by a scan of their counts.
template <class Rows>
__global__ void __launch_bounds__(kBlockThreads)
    gather_rows_kernel(const __grid_constant__ Params p) {
  __shared__ std::int32_t scan[device::kMostWarps];
  __shared__ std::int32_t begins[kBlockThreads];
  const KVPoolView& pool = p.pool;
  const index_t tasks = p.batch.items * pool.kv_heads;
  for (index_t first = 0; first < tasks; first += kBlockThreads) {
    std::int32_t total = 0;
    const std::int32_t begin =
        device::block_exclusive_sum(misses_of(p, first + threadIdx.x), scan, total);
    begins[threadIdx.x] = begin;
    __syncthreads();
    for (std::int32_t i =
             static_cast<std::int32_t>(blockIdx.x) * kBlockWarps + device::warp_index();
         i < total; i += static_cast<std::int32_t>(gridDim.x) * kBlockWarps) {
      int low = 0;  // the last that does not begin after i
      for (int step = kBlockThreads / 2; step > 0; step /= 2) {
        if (begins[low + step] <= i) low += step;
      }
      const index_t task = first + low;
      const index_t item = task / pool.kv_heads;
      const index_t head = task % pool.kv_heads;
      const index_t request = p.batch.request[item];
      const index_t at = task * p.lists.max_budget + (i - begins[low]);
      const std::uint32_t token = static_cast<std::uint32_t>(p.lists.miss_ids[at]);
      const std::uint32_t slot = static_cast<std::uint32_t>(p.lists.miss_slots[at]);
      const RunLayers from{host_run(pool, host_pages_of(pool, request, p.group), head, token),
                           p.first_layer, p.layers};
      const LayerRows to = device_rows(pool, pages_of(pool, request, p.group), head, slot,
                                       p.first_layer);
      Rows::load(pool, from, to);
    }
    __syncthreads();
  }
}

/// Blocks in clusters of at most device::kMostCluster: side by side on the device, so that they
/// take few pairs of multiprocessors from kernels whose own clusters need whole ones, as matrix
/// products do.
void launch(void (*kernel)(Params), int blocks, const Params& p, const Launch& on) {
  int cluster = std::min(blocks, device::kMostCluster);
  while (blocks % cluster != 0) --cluster;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = grid_of(blocks);
  config.blockDim = dim3(kBlockThreads);
  config.stream = on.stream;
  config.attrs = &attribute;
  config.numAttrs = on.has_clusters ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, p));
}

}  // namespace

void launch_gather_rows(const GatherRowsArgs& a, const Launch& on) {
  if (a.batch->items.empty()) return;
  const Params p{view_of(*a.batch),
                 a.lists,
                 a.pool,
                 a.group,
                 static_cast<int>(a.first_layer),
                 static_cast<int>(a.layers())};
  dispatch_rows(a.pool, true,
                [&]<class Rows>() { launch(gather_rows_kernel<Rows>, a.max_blocks, p, on); });
}

}  // namespace spectx::cu
