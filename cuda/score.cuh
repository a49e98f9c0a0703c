// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/block.cuh"
#include "kernels.hpp"
#include "kv_rows.cuh"

// What the kernels of score share.
namespace spectx::cu {

inline constexpr int kScoreThreads = 128;
inline constexpr int kScoreWarps = kScoreThreads / device::kWarpSize;
inline constexpr int kScoreTokens = 256;  // of a block

struct ScoreParams {
  Queries q;
  KVView keys;
  BatchView batch;
  bool is_mean;
  float scale;
  Rows<float> log_sum;
  Rows<float> scores;
  index_t first_item, first_lead;  // of the launch
  index_t query_heads, group;
  float* products;  // [leads of the launch, KV heads, stride, group]
  index_t stride;
  float* sums;  // [leads of the launch, query_heads, blocks] of {largest, sum of exp}
  index_t blocks;
  std::uint32_t* done;  // [items of the launch, KV heads] blocks
  index_t few_leads;    // an item's, at most, where another kernel has it

  __device__ float* products_of(index_t lead, index_t head) const {
    return products + ((lead - first_lead) * keys.kv_heads + head) * stride * group;
  }
  __device__ float* sum_of(index_t lead, index_t query_head, index_t block) const {
    return sums + 2 * (((lead - first_lead) * query_heads + query_head) * blocks + block);
  }
};

/// What the kernels need of an item; no tokens: it does not select, or is left to another kernel.
struct ScoreItem {
  index_t request, lead_begin, lead_end;
  std::int32_t tokens;

  __device__ ScoreItem(const ScoreParams& p, index_t item) {
    request = p.batch.request[item];
    lead_begin = p.batch.lead_begin[item];
    lead_end = p.batch.lead_begin[item + 1];
    const bool is_mine = p.batch.selects[item] != 0 && lead_end - lead_begin > p.few_leads;
    tokens = is_mine ? static_cast<std::int32_t>(p.batch.first(item)) + 1 : 0;
  }
  /// Of the launch that have tokens of the item.
  __device__ unsigned blocks() const {
    return min(gridDim.x, static_cast<unsigned>((tokens + kScoreTokens - 1) / kScoreTokens));
  }
};

/// max(to, value); NaN stays.
__device__ inline float raise(float to, float value) {
  return value > to || isnan(value) ? value : to;
}

/// Calls body(product, log_sum) for the group of a token.
template <class Body>
__device__ void for_group(const float* products, const float* log_sum, index_t group, Body body) {
  if (group % 4 != 0) {
    for (index_t g = 0; g < group; ++g) body(products[g], log_sum[g]);
    return;
  }
  for (index_t g = 0; g < group; g += 4) {
    const float4 these = *reinterpret_cast<const float4*>(products + g);
    body(these.x, log_sum[g]);
    body(these.y, log_sum[g + 1]);
    body(these.z, log_sum[g + 2]);
    body(these.w, log_sum[g + 3]);
  }
}

/// The log weight of a token from its group's products, reduced.
__device__ inline float reduce_group(const float* products, const float* log_sum, index_t group,
                                     bool is_mean) {
  float best = -INFINITY;
  for_group(products, log_sum, group,
            [&](float product, float sum) { best = raise(best, product - sum); });
  if (is_mean) {
    float total = 0;
    for_group(products, log_sum, group,
              [&](float product, float sum) { total += expf(product - sum - best); });
    best += logf(total / static_cast<float>(group));
  }
  return best;
}

/// log_sum of one query over all blocks, the same in every lane; a warp takes it. `sum_of(b)` is
/// {largest, sum of exp} of a block.
template <class SumOf>
__device__ float add_up_blocks(int blocks, SumOf sum_of) {
  float largest = -INFINITY;
#pragma unroll 4
  for (int b = device::lane_index(); b < blocks; b += device::kWarpSize) {
    largest = fmaxf(largest, sum_of(b).x);
  }
  largest = device::group_max(largest);
  double weight = 0;
#pragma unroll 4
  for (int b = device::lane_index(); b < blocks; b += device::kWarpSize) {
    const float2 sum = sum_of(b);
    if (sum.x == -INFINITY) continue;
    weight =
        __fma_rn(static_cast<double>(sum.y), static_cast<double>(expf(sum.x - largest)), weight);
  }
  for (int step = device::kWarpSize / 2; step > 0; step /= 2) {
    weight += __shfl_xor_sync(device::kAllLanes, weight, step);
  }
  return static_cast<float>(static_cast<double>(largest) + log(weight));
}

/// Called by every thread of a block that has written its sums: the last of an item and head adds
/// them up.
__device__ inline void end_block(const ScoreParams& p, const ScoreItem& item, index_t head) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    std::uint32_t* const done = p.done + blockIdx.z * gridDim.y + blockIdx.y;
    __threadfence();
    is_last = atomicInc(done, item.blocks() - 1) == item.blocks() - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  const index_t queries = (item.lead_end - item.lead_begin) * p.group;
  for (index_t n = device::warp_index(); n < queries; n += kScoreWarps) {
    const index_t lead = item.lead_begin + n / p.group;
    const index_t query_head = head * p.group + n % p.group;
    const auto* const sums = reinterpret_cast<const float2*>(p.sum_of(lead, query_head, 0));
    const float log_sum = add_up_blocks((item.tokens + kScoreTokens - 1) / kScoreTokens,
                                        [&](int b) { return __ldcg(sums + b); });
    if (device::lane_index() == 0) p.log_sum.row(lead)[query_head] = log_sum;
  }
}

/// Whether there is a kernel on tensor cores: queries and keys of one half type, dims in
/// {64, 80, 96, 128, 256}.
bool has_half_score_kernel(const ScoreArgs& args) noexcept;
/// The products and sums of the items of a launch.
void launch_multiply_halves(const ScoreArgs& args, const ScoreParams& p, index_t items,
                            const Launch& on);

/// score for the items of one lead, of up to `most_tokens`; false: nothing was launched, the
/// kernels of any item have to. The bits are theirs.
bool launch_score_cluster(const ScoreArgs& args, ScoreParams p, index_t most_tokens,
                          const Launch& on);

/// Blocks of an item and head: enough to fill the device. Each loops over tokens.
inline unsigned score_blocks(const ScoreParams& p, index_t items, index_t per_multiprocessor,
                             const Launch& on) {
  const index_t room =
      std::max<index_t>(on.multiprocessors * per_multiprocessor / (items * p.keys.kv_heads), 1);
  // As many rounds for each.
  return static_cast<unsigned>(div_up(p.blocks, div_up(p.blocks, room)));
}

}  // namespace spectx::cu
