// SPDX-License-Identifier: Apache-2.0
// scores[n] = max over leads of reduce over the group of (q . k_n * scale - log_sum), where
// log_sum = log(sum over n in [1, first] of exp(q . k_n * scale)).
// Moves kv_heads * first * k_dim * row bytes once for a group of up to 8 query heads and one lead:
// memory bound. Writes and reads leads * query_heads * first floats of products.
//
// Sums are over blocks of kScoreTokens, added up by one warp in a fixed order: their bits depend on
// the item alone. The last block of an item and head to end does so.
#include "device/dot_rows.cuh"
#include "launch_early.cuh"
#include "score.cuh"

namespace spectx::cu {
namespace {

constexpr int kReduceThreads = 256;
constexpr index_t kMostProductBytes = index_t{120} << 20;  // of a launch: with sums 128 MiB

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

// One block kScoreTokens tokens of one KV head and item at a time; kQueries queries at a time.
template <class T, int kElements, int kQueries>
__global__ void __launch_bounds__(kScoreThreads)
    multiply_kernel(const __grid_constant__ ScoreParams p) {
  extern __shared__ float q[];  // [kQueries, k_dim]
  __shared__ const std::byte* rows[kScoreTokens];
  __shared__ float products[kQueries][kScoreTokens];
  device::wait_for_kernel_ahead();
  device::let_next_kernel_start();
  const index_t item_index = p.first_item + blockIdx.z;
  const ScoreItem item(p, item_index);
  const index_t head = blockIdx.y;
  if (blockIdx.x >= item.blocks()) return;
  const int k_dim = static_cast<int>(p.keys.k_dim);
  const KVRows keys(p.keys, item_index, item.request, head);
  const index_t queries = (item.lead_end - item.lead_begin) * p.group;
  for (index_t block = blockIdx.x; block * kScoreTokens < item.tokens; block += gridDim.x) {
    const std::int32_t begin = static_cast<std::int32_t>(block * kScoreTokens);
    const int count = min(kScoreTokens, item.tokens - begin);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kScoreThreads) {
      rows[i] = keys.address(begin + i);
    }
    for (index_t first = 0; first < queries; first += kQueries) {
      const int these = static_cast<int>(min(queries - first, index_t{kQueries}));
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < kQueries * k_dim; i += kScoreThreads) {
        const index_t query = first + min(i / k_dim, these - 1);
        q[i] = p.q.get(item.lead_begin + query / p.group, head * p.group + query % p.group,
                       i % k_dim) *
               p.scale;
      }
      __syncthreads();
      device::dot_rows<T, kElements, kQueries>(
          q, k_dim, k_dim, count, [&](int i) { return reinterpret_cast<const T*>(rows[i]); },
          products[0], kScoreTokens);
      __syncthreads();
      // Token 0 is no candidate, whatever its row holds.
      const int first_token = block == 0 ? 1 : 0;
      for (int j = device::warp_index(); j < these; j += kScoreWarps) {
        const index_t lead = item.lead_begin + (first + j) / p.group;
        const index_t g = (first + j) % p.group;
        float* const to = p.products_of(lead, head) + begin * p.group + g;
        for (int i = device::lane_index(); i < count; i += device::kWarpSize) {
          to[i * p.group] = i < first_token ? -INFINITY : products[j][i];
        }
        sum_block(products[j], first_token, count, p.sum_of(lead, head * p.group + g, block));
      }
    }
  }
  end_block(p, item, head);
}

// One block some tokens of one KV head and item; a thread takes a token.
__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(const __grid_constant__ ScoreParams p) {
  device::wait_for_kernel_ahead();
  const index_t item_index = p.first_item + blockIdx.z;
  const ScoreItem item(p, item_index);
  const index_t head = blockIdx.y;
  for (index_t n = index_t{blockIdx.x} * kReduceThreads + threadIdx.x; n < item.tokens;
       n += index_t{gridDim.x} * kReduceThreads) {
    float score = -INFINITY;
    for (index_t lead = item.lead_begin; lead < item.lead_end; ++lead) {
      const float best = reduce_group(p.products_of(lead, head) + n * p.group,
                                      p.log_sum.row(lead) + head * p.group, p.group, p.is_mean);
      score = lead == item.lead_begin ? best : raise(score, best);
    }
    p.scores.row(item_index, head)[n] = n == 0 ? -INFINITY : score;
  }
}

struct Portion {
  index_t first_item, items, first_lead, leads, tokens;
};

index_t num_leads(const ScheduledItem& item) {
  return item.selects ? item.rows : std::min<index_t>(item.rows, 1);
}
/// That an item needs room for.
index_t num_tokens(const ScheduledItem& item, index_t captured_tokens) {
  if (captured_tokens > 0) return captured_tokens;
  return item.selects ? item.first + 1 : 1;
}

/// Products of a portion at most, so that all portions have about as many.
index_t portion_products(const Batch& batch, index_t query_heads, index_t captured_tokens) {
  constexpr index_t kMost = kMostProductBytes / index_t{sizeof(float)};
  index_t all = 0;
  index_t largest = 0;
  for (const ScheduledItem& item : batch.items) {
    const index_t own = num_leads(item) * query_heads * num_tokens(item, captured_tokens);
    all += own;
    largest = std::max(largest, own);
  }
  return std::min(kMost, all / std::max(div_up(all, kMost), index_t{1}) + largest);
}

/// Items from `first` on whose products are at most `most`; at least one.
Portion next_portion(const Batch& batch, const Portion& before, index_t query_heads,
                     index_t captured_tokens, index_t most) {
  Portion p{before.first_item + before.items, 0, before.first_lead + before.leads, 0, 1};
  for (auto i = static_cast<std::size_t>(p.first_item); i < batch.items.size(); ++i) {
    const ScheduledItem& item = batch.items[i];
    const index_t leads = p.leads + num_leads(item);
    const index_t tokens = std::max(p.tokens, num_tokens(item, captured_tokens));
    if (p.items > 0 && leads * query_heads * tokens > most) break;
    p.leads = leads;
    p.tokens = tokens;
    ++p.items;
  }
  return p;
}

void launch_portion(const ScoreArgs& a, ScoreParams& p, const Portion& portion, const Launch& on) {
  p.first_item = portion.first_item;
  p.first_lead = portion.first_lead;
  p.blocks = div_up(portion.tokens, kScoreTokens);
  p.stride = p.blocks * kScoreTokens;
  const index_t queries = portion.leads * p.query_heads;
  p.products = reinterpret_cast<float*>(
      on.scratch.reserve(queries * (p.stride + 2 * p.blocks) * index_t{sizeof(float)}));
  p.sums = p.products + queries * p.stride;
  const auto heads = static_cast<unsigned>(a.keys.kv_heads);
  const auto items = static_cast<unsigned>(portion.items);
  if (has_half_score_kernel(a)) {
    launch_multiply_halves(a, p, portion.items, on);
  } else {
    constexpr index_t kBlocksPerMultiprocessor = 8;
    const dim3 grid(score_blocks(p, portion.items, kBlocksPerMultiprocessor, on), heads, items);
    dispatch_device_dtype(a.keys.dtype, [&]<class T>() {
      dispatch_row_shape<T>(has_wide_rows(a.keys), p.group, [&]<int kElements, int kQueries>() {
        const auto bytes = static_cast<int>(kQueries * a.keys.k_dim * index_t{sizeof(float)});
        launch_early(multiply_kernel<T, kElements, kQueries>, grid, kScoreThreads, bytes, p, on);
      });
    });
  }
  constexpr index_t kReducersPerMultiprocessor = 8;
  const dim3 grid(score_blocks(p, portion.items, kReducersPerMultiprocessor, on), heads, items);
  launch_early(reduce_kernel, grid, kReduceThreads, 0, p, on);
}

}  // namespace

void launch_score(const ScoreArgs& a, const Launch& on) {
  const Batch& batch = *a.batch;
  if (!batch.needs_selection || batch.lead_row.size == 0) return;
  // A captured step is replayed while lengths grow.
  const index_t captured_tokens = is_capturing(on.stream) ? a.scores.shape[2] : 0;
  const index_t query_heads = a.q.shape[1];
  ScoreParams p{Queries(a.q),
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
                0,
                on.zeros,
                0};
  index_t most_tokens = 1;
  index_t most_leads = 0;
  for (const ScheduledItem& item : batch.items) {
    most_tokens = std::max(most_tokens, num_tokens(item, captured_tokens));
    most_leads = std::max(most_leads, num_leads(item));
  }
  if (launch_score_cluster(a, p, most_tokens, on)) {
    if (most_leads <= 1) return;
    p.few_leads = 1;
  }
  const index_t most = portion_products(batch, query_heads, captured_tokens);
  Portion portion{};
  for (;;) {
    portion = next_portion(batch, portion, query_heads, captured_tokens, most);
    if (portion.items == 0) return;
    if (portion.leads > 0) launch_portion(a, p, portion, on);
  }
}

}  // namespace spectx::cu
