// SPDX-License-Identifier: Apache-2.0
// out = softmax(q k^T scale) v over the ranks that a row sees.
// Moves, for each batch row and KV head, ranks * (k_dim + v_dim) * row bytes once for the whole
// group of query heads (to 8; more read again from the cache): memory bound. Partials add
// query_heads * (v_dim + 2) * 8 bytes a split.
//
// The ranks that a row sees are cut into splits of kTileRanks, or of the smallest power of two
// times that which gives at most kMostSplits: a function of their number alone. A split is walked
// tile by tile, splits are combined in ascending order, so that a result depends on the rows that
// it sees and on nothing else.
#include <cmath>
#include <limits>

#include "attend.hpp"
#include "device/dot_rows.cuh"
#include "kv_rows.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 128;
constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;
constexpr int kTileRanks = kBlockThreads;  // a thread finds one address each
constexpr int kMostSplits = 64;
constexpr int kCombineThreads = 128;
constexpr index_t kFewRows = 8;  // of an item: more go to the tensor cores where they can

struct Params {
  Queries q;
  KVView kv;
  BatchView batch;
  index_t first_row;  // of the launch
  index_t most_rows;  // of an item; another kernel has those with more
  index_t query_heads, group;
  float scale;
  float* partials;  // [rows of the launch, query_heads, splits] of {largest, weight}, then of V
  float* partial_v;
  int most_splits;
  std::byte* out;
  DType out_dtype;
  index_t out_stride, out_head_stride;
};

struct Splits {
  std::int32_t ranks, count;

  __device__ explicit Splits(std::int32_t visible) : ranks(kTileRanks) {
    while (ranks * kMostSplits < visible) ranks *= 2;
    count = (visible + ranks - 1) / ranks;
  }
};

/// Whether the item of a row is left to another kernel.
__device__ inline bool is_left_out(const Params& p, index_t item) {
  return p.batch.row_begin[item + 1] - p.batch.row_begin[item] > p.most_rows;
}
__device__ inline index_t partial_index(const Params& p, index_t row, index_t query_head,
                                        index_t split) {
  return (row * p.query_heads + query_head) * p.most_splits + split;
}

/// Turns a tile's products into weights relative to the largest so far; a warp takes a query.
__device__ inline void update_softmax(float* products, int count, float& largest, float& weight,
                                      float& factor) {
  float tile_largest = -INFINITY;
  for (int i = device::lane_index(); i < count; i += device::kWarpSize) {
    tile_largest = fmaxf(tile_largest, products[i]);
  }
  tile_largest = device::group_max(tile_largest);
  const float next = fmaxf(largest, tile_largest);
  const float base = next == -INFINITY ? 0.0F : next;
  float sum = 0;
  for (int i = device::lane_index(); i < count; i += device::kWarpSize) {
    const float w = expf(products[i] - base);
    products[i] = w;
    sum += w;
  }
  sum = device::group_sum(sum);
  factor = expf(largest - base);
  weight = __fadd_rn(__fmul_rn(weight, factor), sum);
  largest = next;
}

// One block a batch row, KV head and some splits; kQueries query heads at a time.
template <class T, int kElements, int kQueries>
__global__ void __launch_bounds__(kBlockThreads) attend_kernel(const __grid_constant__ Params p) {
  extern __shared__ float shared[];
  __shared__ const std::byte* rows[kTileRanks];
  __shared__ float factor[kQueries];
  __shared__ float state[kQueries][2];  // largest, weight
  const int k_dim = static_cast<int>(p.kv.k_dim);
  const int v_dim = static_cast<int>(p.kv.v_dim);
  float* const q = shared;                              // [kQueries, k_dim]
  float* const weights = q + kQueries * k_dim;          // [kQueries, kTileRanks]
  float* const sums = weights + kQueries * kTileRanks;  // [warps, kQueries, v_dim]

  const index_t row = blockIdx.z;
  const index_t batch_row = p.first_row + row;
  const index_t head = blockIdx.y;
  const index_t item = p.batch.item[batch_row];
  if (is_left_out(p, item)) return;
  const KVRows kv(p.kv, item, p.batch.request[item], head);
  const std::int32_t visible = kv.visible(p.batch.position[batch_row]);
  const Splits splits(visible);

  for (std::int32_t split = static_cast<std::int32_t>(blockIdx.x); split < splits.count;
       split += static_cast<std::int32_t>(gridDim.x)) {
    const std::int32_t begin = split * splits.ranks;
    const std::int32_t end = min(begin + splits.ranks, visible);
    for (index_t first = 0; first < p.group; first += kQueries) {
      const int queries = static_cast<int>(min(p.group - first, index_t{kQueries}));
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < kQueries * k_dim; i += kBlockThreads) {
        const int j = min(i / k_dim, queries - 1);
        q[i] = p.q.get(batch_row, head * p.group + first + j, i % k_dim) * p.scale;
      }
      if (threadIdx.x < kQueries) {
        state[threadIdx.x][0] = -INFINITY;
        state[threadIdx.x][1] = 0;
      }
      device::RowSum<kElements, kQueries> sum;
      sum.clear();
      for (std::int32_t tile = begin; tile < end; tile += kTileRanks) {
        const int count = min(kTileRanks, end - tile);
        __syncthreads();
        if (static_cast<int>(threadIdx.x) < count) {
          rows[threadIdx.x] = kv.address(tile + static_cast<std::int32_t>(threadIdx.x));
        }
        __syncthreads();
        device::dot_rows<T, kElements, kQueries>(
            q, k_dim, k_dim, count, [&](int i) { return reinterpret_cast<const T*>(rows[i]); },
            weights, kTileRanks);
        __syncthreads();
        for (int j = device::warp_index(); j < kQueries; j += kBlockWarps) {
          float largest = state[j][0];
          float weight = state[j][1];
          float f = 0;
          update_softmax(weights + j * kTileRanks, count, largest, weight, f);
          __syncwarp();
          if (device::lane_index() == 0) {
            state[j][0] = largest;
            state[j][1] = weight;
            factor[j] = f;
          }
        }
        __syncthreads();
        if (tile != begin) {
#pragma unroll
          for (int j = 0; j < kQueries; ++j) sum.scale(j, factor[j]);
        }
        sum.template add<T>(weights, kTileRanks, v_dim, count, [&](int i) {
          return reinterpret_cast<const T*>(rows[i] + p.kv.v_offset);
        });
      }
      sum.store(sums, v_dim);
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < queries * v_dim; i += kBlockThreads) {
        float total = 0;
#pragma unroll
        for (int w = 0; w < kBlockWarps; ++w) total += sums[w * kQueries * v_dim + i];
        const index_t to = partial_index(p, row, head * p.group + first + i / v_dim, split);
        p.partial_v[to * v_dim + i % v_dim] = total;
      }
      if (static_cast<int>(threadIdx.x) < queries) {
        const index_t to = partial_index(
            p, row, head * p.group + first + static_cast<index_t>(threadIdx.x), split);
        p.partials[2 * to] = state[threadIdx.x][0];
        p.partials[2 * to + 1] = state[threadIdx.x][1];
      }
    }
  }
}

// One block a batch row and query head; lanes over v_dim, splits in ascending order.
template <class X>
__global__ void __launch_bounds__(kCombineThreads)
    combine_kernel(const __grid_constant__ Params p) {
  const index_t row = blockIdx.y;
  const index_t batch_row = p.first_row + row;
  const index_t query_head = blockIdx.x;
  const index_t item = p.batch.item[batch_row];
  if (is_left_out(p, item)) return;
  const KVRows kv(p.kv, item, p.batch.request[item], query_head / p.group);
  const Splits splits(kv.visible(p.batch.position[batch_row]));
  const index_t first = partial_index(p, row, query_head, 0);
  const index_t v_dim = p.kv.v_dim;
  X* const out =
      reinterpret_cast<X*>(p.out) + batch_row * p.out_stride + query_head * p.out_head_stride;
  float largest = -INFINITY;
  for (std::int32_t s = 0; s < splits.count; ++s) {
    largest = fmaxf(largest, p.partials[2 * (first + s)]);
  }
  for (index_t d = threadIdx.x; d < v_dim; d += kCombineThreads) {
    float weight = 0;
    float value = 0;
#pragma unroll 4
    for (std::int32_t s = 0; s < splits.count; ++s) {
      const float share = expf(p.partials[2 * (first + s)] - largest);
      weight = fmaf(share, p.partials[2 * (first + s) + 1], weight);
      value = fmaf(share, p.partial_v[(first + s) * v_dim + d], value);
    }
    out[d] = device::from_float<X>(splits.count == 0 ? 0.0F : value / weight);
  }
}

/// Splits that the longest row of the batch needs at most.
int most_splits(const AttendArgs& a) {
  index_t longest = 1;
  for (const ScheduledItem& item : a.batch->items) {
    longest = std::max(longest, item.first + item.rows);
  }
  return static_cast<int>(std::min(div_up(longest, kTileRanks), index_t{kMostSplits}));
}

/// Splits worth a block each: enough blocks to fill the device.
int split_blocks(const AttendArgs& a, index_t rows, int most, const Launch& on) {
  constexpr index_t kBlocksPerMultiprocessor = 16;
  bool is_sparse = a.kv.counts != nullptr;
  for (const ScheduledItem& item : a.batch->items) is_sparse = is_sparse && item.selects;
  const index_t useful =
      is_sparse ? std::min<index_t>(most, div_up(a.kv.max_budget, kTileRanks)) : most;
  const index_t room = div_up(on.multiprocessors * kBlocksPerMultiprocessor, rows * a.kv.kv_heads);
  return static_cast<int>(std::clamp<index_t>(room, 1, useful));
}

void launch_rows(const AttendArgs& a, Params& p, index_t rows, const Launch& on) {
  const dim3 grid(static_cast<unsigned>(split_blocks(a, rows, p.most_splits, on)),
                  static_cast<unsigned>(a.kv.kv_heads), static_cast<unsigned>(rows));
  dispatch_device_dtype(a.kv.dtype, [&]<class T>() {
    dispatch_row_shape<T>(has_wide_rows(a.kv), p.group, [&]<int kElements, int kQueries>() {
      const index_t floats = kQueries * (a.kv.k_dim + kTileRanks + kBlockWarps * a.kv.v_dim);
      attend_kernel<T, kElements, kQueries>
          <<<grid, kBlockThreads, static_cast<std::size_t>(floats) * sizeof(float), on.stream>>>(p);
    });
  });
  check(cudaGetLastError());
  const dim3 combine_grid(static_cast<unsigned>(p.query_heads), static_cast<unsigned>(rows));
  dispatch_device_dtype(a.out.dtype, [&]<class X>() {
    combine_kernel<X><<<combine_grid, kCombineThreads, 0, on.stream>>>(p);
  });
  check(cudaGetLastError());
}

}  // namespace

void launch_attend(const AttendArgs& a, const Launch& on) {
  const index_t rows = a.batch->num_rows;
  if (rows == 0 || a.out.size() == 0) return;
  const bool has_many = a.batch->max_rows_per_item > kFewRows && has_many_rows_kernel(a);
  if (has_many) launch_attend_many_rows(a, kFewRows, on);
  const auto is_few = [](const ScheduledItem& item) { return item.rows <= kFewRows; };
  if (has_many && std::none_of(a.batch->items.begin(), a.batch->items.end(), is_few)) return;
  const index_t most_rows = has_many ? kFewRows : std::numeric_limits<index_t>::max();
  if (has_few_rows_kernel(a)) return launch_attend_few_rows(a, most_rows, on);
  const index_t query_heads = a.q.shape[1];
  // A captured step is replayed while lengths grow.
  const int splits = is_capturing(on.stream) ? static_cast<int>(kMostSplits) : most_splits(a);
  const index_t row_partials = query_heads * splits;
  const index_t row_bytes = row_partials * (a.kv.v_dim + 2) * index_t{sizeof(float)};
  constexpr index_t kMostGridRows = 65'535;
  const index_t portion =
      std::clamp(kMostPartialBytes / row_bytes, index_t{1}, std::min(rows, kMostGridRows));
  float* const partials = reinterpret_cast<float*>(on.scratch.reserve(portion * row_bytes));
  Params p{Queries(a.q),
           a.kv,
           view_of(*a.batch),
           0,
           most_rows,
           query_heads,
           query_heads / a.kv.kv_heads,
           a.scale != 0 ? a.scale : 1 / std::sqrt(static_cast<float>(a.kv.k_dim)),
           partials,
           partials + 2 * portion * row_partials,
           splits,
           static_cast<std::byte*>(a.out.data),
           a.out.dtype,
           a.out.strides[0],
           a.out.strides[1]};
  for (; p.first_row < rows; p.first_row += portion) {
    launch_rows(a, p, std::min(portion, rows - p.first_row), on);
  }
}

}  // namespace spectx::cu
