// SPDX-License-Identifier: Apache-2.0
// scores[i, 0, n] = max over heads of scores[i, h, n], or the log of their mean weight.
// Moves (heads + 1) * tokens * 4 bytes an item: from the cache, where score left them.
#include "kernels.hpp"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 256;
constexpr index_t kMostBlocks = 64;  // of an item: the grid does not depend on its length

struct Params {
  Rows<float> scores;
  BatchView batch;
  index_t heads;
  bool is_mean;
};

// Some blocks an item; threads stride over tokens.
__global__ void __launch_bounds__(kBlockThreads)
    join_heads_kernel(const __grid_constant__ Params p) {
  const index_t item = blockIdx.y;
  if (p.batch.selects[item] == 0) return;
  const index_t tokens = p.batch.first(item) + 1;
  for (index_t n = blockIdx.x * index_t{kBlockThreads} + threadIdx.x; n < tokens;
       n += gridDim.x * index_t{kBlockThreads}) {
    float best = p.scores.row(item)[n];
    for (index_t h = 1; h < p.heads; ++h) {
      const float value = p.scores.row(item, h)[n];
      best = value > best || value != value ? value : best;
    }
    if (p.is_mean && best - best == 0) {  // it is finite
      float total = 0;
      for (index_t h = 0; h < p.heads; ++h) total += expf(p.scores.row(item, h)[n] - best);
      best += logf(total / static_cast<float>(p.heads));
    }
    p.scores.row(item)[n] = best;
  }
}

}  // namespace

void launch_join_heads(const JoinHeadsArgs& a, const Launch& on) {
  const index_t items = static_cast<index_t>(a.batch->items.size());
  if (items == 0) return;
  const Params p{rows_of<float>(a.scores), view_of(*a.batch), a.scores.shape[1],
                 a.reduce == GroupReduce::mean};
  const index_t blocks = std::min(div_up(a.scores.shape[2], kBlockThreads), kMostBlocks);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(items));
  join_heads_kernel<<<grid, kBlockThreads, 0, on.stream>>>(p);
  check(cudaGetLastError());
}

}  // namespace spectx::cu
