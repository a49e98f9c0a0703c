// SPDX-License-Identifier: Apache-2.0
// scores[n] = max over leads of reduce over the group of (q . k_n * scale - log_sum), where
// log_sum = log(sum over n in [1, first] of exp(q . k_n * scale)).
// Moves kv_heads * first * k_dim * row bytes once for a group of up to 8 query heads and one lead,
// and writes and reads leads * query_heads * first floats of products: memory bound.
//
// Sums are over blocks of kBlockTokens, added up by one warp in a fixed order: their bits depend on
// the item alone.
#include "device/dot_rows.cuh"
#include "kernels.hpp"
#include "kv_rows.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 128;
constexpr int kBlockWarps = kBlockThreads / device::kWarpSize;
constexpr int kBlockTokens = 512;
constexpr index_t kMostProductBytes = index_t{128} << 20;  // of a launch: it takes as many items

struct Params {
  Queries q;
  KVView keys;
  BatchView batch;
  bool is_mean;
  float scale;
  Rows<float> log_sum;
  Rows<float> scores;
  index_t first_item, first_lead;  // of the launch
  index_t query_heads, group;
  float* products;  // [leads of the launch, query_heads, stride]
  index_t stride;
  float* sums;  // [leads of the launch, query_heads, blocks] of {largest, sum of exp}
  index_t blocks;
};

/// What the kernels need of an item; no tokens: it does not select.
struct Item {
  index_t request, lead_begin, lead_end;
  std::int32_t tokens;

  __device__ Item(const Params& p, index_t item) {
    request = p.batch.request[item];
    lead_begin = p.batch.lead_begin[item];
    lead_end = p.batch.lead_begin[item + 1];
    tokens = p.batch.selects[item] == 0 ? 0 : static_cast<std::int32_t>(p.batch.first(item)) + 1;
  }
};

__device__ inline float* products_of(const Params& p, index_t lead, index_t query_head) {
  return p.products + ((lead - p.first_lead) * p.query_heads + query_head) * p.stride;
}
__device__ inline float* sum_of(const Params& p, index_t lead, index_t query_head, index_t block) {
  return p.sums + 2 * (((lead - p.first_lead) * p.query_heads + query_head) * p.blocks + block);
}

/// {largest, sum of exp} of a block's products of one query; a warp takes it.
__device__ inline void sum_block(const float* products, int begin, int count, float* to) {
  float largest = -INFINITY;
  bool has_nan = false;
  for (int i = begin + device::lane_index(); i < count; i += device::kWarpSize) {
    has_nan = has_nan || isnan(products[i]);
    largest = fmaxf(largest, products[i]);
  }
  largest = device::group_max(largest);
  has_nan = __any_sync(device::kAllLanes, has_nan);
  float sum = 0;
  for (int i = begin + device::lane_index(); i < count && largest != -INFINITY;
       i += device::kWarpSize) {
    sum += expf(products[i] - largest);
  }
  sum = device::group_sum(sum);
  if (device::lane_index() != 0) return;
  to[0] = has_nan ? 0.0F : largest;
  to[1] = has_nan ? NAN : sum;
}

// One block kBlockTokens tokens of one KV head and item; kQueries queries at a time.
template <class T, int kElements, int kQueries>
__global__ void __launch_bounds__(kBlockThreads) multiply_kernel(const __grid_constant__ Params p) {
  extern __shared__ float q[];  // [kQueries, k_dim]
  __shared__ const std::byte* rows[kBlockTokens];
  __shared__ float products[kQueries][kBlockTokens];
  const index_t item_index = p.first_item + blockIdx.z;
  const Item item(p, item_index);
  const index_t head = blockIdx.y;
  const int k_dim = static_cast<int>(p.keys.k_dim);
  const KVRows keys(p.keys, item_index, item.request, head);
  const index_t queries = (item.lead_end - item.lead_begin) * p.group;
  for (index_t block = blockIdx.x; block * kBlockTokens < item.tokens; block += gridDim.x) {
    const std::int32_t begin = static_cast<std::int32_t>(block * kBlockTokens);
    const int count = min(kBlockTokens, item.tokens - begin);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlockThreads) {
      rows[i] = keys.address(begin + i);
    }
    for (index_t first = 0; first < queries; first += kQueries) {
      const int these = static_cast<int>(min(queries - first, index_t{kQueries}));
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < kQueries * k_dim; i += kBlockThreads) {
        const index_t query = first + min(i / k_dim, these - 1);
        q[i] = p.q.get(item.lead_begin + query / p.group, head * p.group + query % p.group,
                       i % k_dim) *
               p.scale;
      }
      __syncthreads();
      device::dot_rows<T, kElements, kQueries>(
          q, k_dim, k_dim, count, [&](int i) { return reinterpret_cast<const T*>(rows[i]); },
          products[0], kBlockTokens);
      __syncthreads();
      // Token 0 is no candidate, whatever its row holds.
      const int first_token = block == 0 ? 1 : 0;
      for (int j = device::warp_index(); j < these; j += kBlockWarps) {
        const index_t lead = item.lead_begin + (first + j) / p.group;
        const index_t query_head = head * p.group + (first + j) % p.group;
        float* const to = products_of(p, lead, query_head) + begin;
        for (int i = device::lane_index(); i < count; i += device::kWarpSize) {
          to[i] = i < first_token ? -INFINITY : products[j][i];
        }
        sum_block(products[j], first_token, count, sum_of(p, lead, query_head, block));
      }
    }
  }
}

// One warp a query head and lead: log_sum over the blocks.
__global__ void __launch_bounds__(device::kWarpSize)
    add_up_kernel(const __grid_constant__ Params p) {
  const index_t lead = p.first_lead + blockIdx.y;
  const index_t query_head = blockIdx.x;
  const index_t item_index = p.batch.item[p.batch.lead_row[lead]];
  const Item item(p, item_index);
  if (item.tokens == 0) return;
  const int blocks = (item.tokens + kBlockTokens - 1) / kBlockTokens;
  const float* const sums = sum_of(p, lead, query_head, 0);
  float largest = -INFINITY;
  for (int b = device::lane_index(); b < blocks; b += device::kWarpSize) {
    largest = fmaxf(largest, sums[2 * b]);
  }
  largest = device::group_max(largest);
  double weight = 0;
  for (int b = device::lane_index(); b < blocks; b += device::kWarpSize) {
    if (sums[2 * b] == -INFINITY) continue;
    weight += static_cast<double>(sums[2 * b + 1]) *
              exp(static_cast<double>(sums[2 * b]) - static_cast<double>(largest));
  }
  for (int step = device::kWarpSize / 2; step > 0; step /= 2) {
    weight += __shfl_xor_sync(device::kAllLanes, weight, step);
  }
  if (device::lane_index() != 0) return;
  p.log_sum.row(lead)[query_head] = static_cast<float>(static_cast<double>(largest) + log(weight));
}

/// max(to, value); NaN stays.
__device__ inline float raise(float to, float value) {
  return value > to || isnan(value) ? value : to;
}

// One block some tokens of one KV head and item; a thread takes a token.
__global__ void __launch_bounds__(kBlockThreads) reduce_kernel(const __grid_constant__ Params p) {
  const index_t item_index = p.first_item + blockIdx.z;
  const Item item(p, item_index);
  const index_t head = blockIdx.y;
  for (index_t n = index_t{blockIdx.x} * kBlockThreads + threadIdx.x; n < item.tokens;
       n += index_t{gridDim.x} * kBlockThreads) {
    float score = -INFINITY;
    for (index_t lead = item.lead_begin; lead < item.lead_end; ++lead) {
      const float* const log_sum = p.log_sum.row(lead) + head * p.group;
      const float* const products = products_of(p, lead, head * p.group) + n;
      float best = -INFINITY;
      for (index_t g = 0; g < p.group; ++g) best = raise(best, products[g * p.stride] - log_sum[g]);
      if (p.is_mean) {
        float total = 0;
        for (index_t g = 0; g < p.group; ++g) {
          total += expf(products[g * p.stride] - log_sum[g] - best);
        }
        best += logf(total / static_cast<float>(p.group));
      }
      score = lead == item.lead_begin ? best : raise(score, best);
    }
    p.scores.row(item_index, head)[n] = n == 0 ? -INFINITY : score;
  }
}

struct Portion {
  index_t first_item, items, first_lead, leads, tokens;
};

/// Items from `first` on whose products fit; at least one.
Portion next_portion(const Batch& batch, const Portion& before, index_t query_heads,
                     index_t captured_tokens) {
  Portion p{before.first_item + before.items, 0, before.first_lead + before.leads, 0, 1};
  for (auto i = static_cast<std::size_t>(p.first_item); i < batch.items.size(); ++i) {
    const ScheduledItem& item = batch.items[i];
    const index_t leads = p.leads + (item.selects ? item.rows : std::min<index_t>(item.rows, 1));
    const index_t own = item.selects ? item.first + 1 : 1;
    const index_t tokens = std::max(p.tokens, captured_tokens > 0 ? captured_tokens : own);
    const bool fits = leads * query_heads * tokens * index_t{sizeof(float)} <= kMostProductBytes;
    if (p.items > 0 && !fits) break;
    p.leads = leads;
    p.tokens = tokens;
    ++p.items;
  }
  return p;
}

void launch_portion(const ScoreArgs& a, Params& p, const Portion& portion, const Launch& on) {
  p.first_item = portion.first_item;
  p.first_lead = portion.first_lead;
  p.blocks = div_up(portion.tokens, kBlockTokens);
  p.stride = p.blocks * kBlockTokens;
  const index_t queries = portion.leads * p.query_heads;
  p.products = reinterpret_cast<float*>(
      on.scratch.reserve(queries * (p.stride + 2 * p.blocks) * index_t{sizeof(float)}));
  p.sums = p.products + queries * p.stride;
  constexpr index_t kMostBlocks = 4096;  // of a head: more tokens are looped over
  const auto heads = static_cast<unsigned>(a.keys.kv_heads);
  const auto items = static_cast<unsigned>(portion.items);
  const dim3 grid(static_cast<unsigned>(std::min(p.blocks, kMostBlocks)), heads, items);
  dispatch_device_dtype(a.keys.dtype, [&]<class T>() {
    dispatch_row_shape<T>(has_wide_rows(a.keys), p.group, [&]<int kElements, int kQueries>() {
      const auto bytes = static_cast<std::size_t>(kQueries * a.keys.k_dim) * sizeof(float);
      multiply_kernel<T, kElements, kQueries><<<grid, kBlockThreads, bytes, on.stream>>>(p);
    });
  });
  check(cudaGetLastError());
  const dim3 sum_grid(static_cast<unsigned>(p.query_heads), static_cast<unsigned>(portion.leads));
  add_up_kernel<<<sum_grid, device::kWarpSize, 0, on.stream>>>(p);
  check(cudaGetLastError());
  const index_t pieces = std::min(div_up(portion.tokens, kBlockThreads), kMostBlocks);
  reduce_kernel<<<dim3(static_cast<unsigned>(pieces), heads, items), kBlockThreads, 0, on.stream>>>(
      p);
  check(cudaGetLastError());
}

}  // namespace

void launch_score(const ScoreArgs& a, const Launch& on) {
  const Batch& batch = *a.batch;
  if (!batch.needs_selection || batch.lead_row.size == 0) return;
  if (a.keys.k_dim > device::kMostDim) throw Unsupported("score: heads of more than 256 dims");
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(on.stream, &capture));
  // A captured step is replayed while lengths grow.
  const index_t captured_tokens = capture == cudaStreamCaptureStatusNone ? 0 : a.scores.shape[2];
  const index_t query_heads = a.q.shape[1];
  Params p{Queries(a.q),
           a.keys,
           view_of(batch),
           a.reduce == GroupReduce::mean,
           a.scale,
           rows_of<float>(a.log_sum),
           rows_of<float>(a.scores),
           0,
           0,
           query_heads,
           query_heads / a.keys.kv_heads,
           nullptr,
           0,
           nullptr,
           0};
  Portion portion = next_portion(batch, {}, query_heads, captured_tokens);
  for (; portion.items > 0; portion = next_portion(batch, portion, query_heads, captured_tokens)) {
    if (portion.leads > 0) launch_portion(a, p, portion, on);
  }
}

}  // namespace spectx::cu
