// SPDX-License-Identifier: Apache-2.0
// coverage = least and mean over queries of the sum over selected n in [1, first] of
// exp(q . k_n * scale - log_sum); 1 and 1 where everything is read.
// Moves ids * k_dim * row bytes once for up to 8 queries of a KV head: latency bound.
#include "device/block.cuh"
#include "device/dot_rows.cuh"
#include "kernels.hpp"
#include "kv_rows.cuh"

namespace spectx::cu {
namespace {

static_assert(kLimits.most_head_dim == device::kMostDim);

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;
constexpr int kTileRanks = kBlockThreads;

struct Params {
  Queries q;
  KVView keys;
  BatchView batch;
  float scale;
  Rows<const float> log_sum;
  const std::int32_t *budgets, *head_of_kv_head;  // budgets may be null
  const std::int32_t *ids, *counts;
  float* coverage;
  index_t max_budget, kv_heads, group;
};

/// The first of `count` ascending ids that is not below `id`.
__device__ inline std::int32_t lower_bound(const std::int32_t* ids, std::int32_t count,
                                           std::int32_t id) {
  std::int32_t low = 0;
  while (low < count) {
    const std::int32_t middle = low + (count - low) / 2;
    if (ids[middle] < id) {
      low = middle + 1;
    } else {
      count = middle;
    }
  }
  return low;
}

// One block an item and KV head of the target.
template <class T, int kElements, int kQueries>
__global__ void __launch_bounds__(kBlockThreads) coverage_kernel(const __grid_constant__ Params p) {
  extern __shared__ float q[];  // [kQueries, k_dim]
  __shared__ const std::byte* rows[kTileRanks];
  __shared__ float products[kQueries][kTileRanks];
  __shared__ float masses[kQueries];
  const index_t item = blockIdx.x / p.kv_heads;
  if (p.budgets != nullptr && p.budgets[item] == 0) return;
  const std::int32_t count = p.counts[blockIdx.x];
  const std::int32_t first_row = static_cast<std::int32_t>(p.batch.first(item));
  float* const coverage = p.coverage + 2 * index_t{blockIdx.x};
  if (p.batch.selects[item] == 0 || count == kAllTokens || first_row == 0) {
    if (threadIdx.x < 2) coverage[threadIdx.x] = 1;
    return;
  }
  const index_t head = serving_head(p.head_of_kv_head, blockIdx.x % p.kv_heads);
  const std::int32_t* const ids = p.ids + blockIdx.x * p.max_budget;
  const std::int32_t begin = lower_bound(ids, count, 1);
  const std::int32_t end = lower_bound(ids, count, first_row + 1);
  const KVRows keys(p.keys, p.batch.request[item], head, ids, count);
  const int k_dim = static_cast<int>(p.keys.k_dim);
  const index_t first_lead = p.batch.lead_begin[item];
  const index_t queries = (p.batch.lead_begin[item + 1] - first_lead) * p.group;
  float least = 1;
  float mean = 0;
  for (index_t first = 0; first < queries; first += kQueries) {
    const int these = static_cast<int>(min(queries - first, index_t{kQueries}));
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kQueries * k_dim; i += kBlockThreads) {
      const index_t query = first + min(i / k_dim, these - 1);
      q[i] = p.q.get(first_lead + query / p.group, head * p.group + query % p.group, i % k_dim);
    }
    if (threadIdx.x < kQueries) masses[threadIdx.x] = 0;
    for (std::int32_t tile = begin; tile < end; tile += kTileRanks) {
      const int tile_count = min(kTileRanks, end - tile);
      __syncthreads();
      if (static_cast<int>(threadIdx.x) < tile_count) {
        rows[threadIdx.x] = keys.address(tile + static_cast<std::int32_t>(threadIdx.x));
      }
      __syncthreads();
      device::dot_rows<T, kElements, kQueries>(
          q, k_dim, k_dim, tile_count, [&](int i) { return reinterpret_cast<const T*>(rows[i]); },
          products[0], kTileRanks);
      __syncthreads();
      for (int j = device::warp_index(); j < these; j += kBlockWarps) {
        const float log_sum = p.log_sum.row(
            first_lead + (first + j) / p.group)[head * p.group + (first + j) % p.group];
        float mass = 0;
        for (int i = device::lane_index(); i < tile_count; i += device::kWarpSize) {
          mass += expf(products[j][i] * p.scale - log_sum);
        }
        mass = device::group_sum(mass);
        if (device::lane_index() == 0) masses[j] += mass;
      }
    }
    __syncthreads();
    for (int j = 0; j < these; ++j) {
      least = fminf(least, masses[j]);
      mean += masses[j] / static_cast<float>(queries);
    }
  }
  if (threadIdx.x == 0) {
    coverage[0] = least;
    coverage[1] = mean;
  }
}

}  // namespace

void launch_coverage(const CoverageArgs& a, const Launch& on) {
  const index_t kv_heads = num_kv_heads(a.head_of_kv_head, a.keys.kv_heads);
  const index_t blocks = static_cast<index_t>(a.batch->items.size()) * kv_heads;
  if (blocks == 0) return;
  const Params p{Queries(a.q),
                 a.keys,
                 view_of(*a.batch),
                 a.scale,
                 rows_of<const float>(a.log_sum),
                 index_of(a.budgets),
                 index_of(a.head_of_kv_head),
                 a.selection.ids.data,
                 a.selection.counts.data,
                 a.selection.coverage.data,
                 a.selection.max_budget,
                 kv_heads,
                 a.q.shape[1] / a.keys.kv_heads};
  dispatch_device_dtype(a.keys.dtype, [&]<class T>() {
    dispatch_row_shape<T>(has_wide_rows(a.keys), p.group, [&]<int kElements, int kQueries>() {
      const auto bytes = static_cast<std::size_t>(kQueries * a.keys.k_dim) * sizeof(float);
      coverage_kernel<T, kElements, kQueries>
          <<<grid_of(blocks), kBlockThreads, bytes, on.stream>>>(p);
    });
  });
  check(cudaGetLastError());
}

}  // namespace spectx::cu
