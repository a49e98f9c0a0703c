// SPDX-License-Identifier: Apache-2.0
// One rung of the ladder of budgets, as GuardArgs says it.
// Reads kv_heads coverages of an item: latency bound, one short launch.
#include "kernels.hpp"
#include "views.cuh"

namespace spectx::cu {
namespace {

constexpr int kBlockThreads = 128;

struct Params {
  BatchView batch;
  index_t kv_heads;
  std::int32_t rung, budget, next_budget;  // next_budget 0: this is the last rung
  float enough, comfortable;
  bool may_read_all;
  std::int32_t* counts;
  float* coverage;
  GuardOutcome* outcomes;
  std::int32_t *budgets, *rungs;
  const std::int32_t* resident_groups;
  index_t groups;
};

__device__ void start(const Params& p, index_t item) {
  p.budgets[item] = p.budget;
  p.outcomes[item] = GuardOutcome::kept;
  if (p.batch.first(item) == 0) p.rungs[p.batch.request[item]] = 0;
}

__device__ void climb(const Params& p, index_t item) {
  if (p.batch.selects[item] == 0) {
    p.budgets[item] = 0;
    return;
  }
  float sum = 0;
  for (index_t i = item * p.kv_heads; i < (item + 1) * p.kv_heads; ++i) {
    sum += p.coverage[2 * i + 1];
  }
  const float covered = __fdiv_rn(sum, static_cast<float>(p.kv_heads));
  const std::int32_t request = p.batch.request[item];
  const float wanted = p.rung < p.rungs[request] ? p.comfortable : p.enough;
  const bool is_enough = covered >= wanted || p.batch.length[item] <= p.budget;
  p.budgets[item] = is_enough ? 0 : p.next_budget;
  if (!is_enough && p.next_budget > 0) return;
  p.rungs[request] = p.rung;
  if (is_enough) {
    p.outcomes[item] = p.rung == 0 ? GuardOutcome::kept : GuardOutcome::raised;
  } else if (p.may_read_all && p.resident_groups[request] == p.groups) {
    p.outcomes[item] = GuardOutcome::full;
    for (index_t i = item * p.kv_heads; i < (item + 1) * p.kv_heads; ++i) {
      p.counts[i] = kAllTokens;
      p.coverage[2 * i] = p.coverage[2 * i + 1] = 1;
    }
  } else {
    p.outcomes[item] = GuardOutcome::limited;
  }
}

// One thread an item.
__global__ void __launch_bounds__(kBlockThreads) guard_kernel(const __grid_constant__ Params p) {
  const index_t item = blockIdx.x * index_t{kBlockThreads} + threadIdx.x;
  if (item >= p.batch.items) return;
  if (p.rung < 0) {
    start(p, item);
  } else if (p.budgets[item] != 0) {
    climb(p, item);
  }
}

}  // namespace

void launch_guard(const GuardArgs& a, const Launch& on) {
  const index_t items = static_cast<index_t>(a.batch->items.size());
  if (items == 0) return;
  const index_t rung = std::max(a.rung, index_t{0});
  const bool is_last = rung + 1 == a.rule.num_rungs();
  const Params p{view_of(*a.batch),
                 a.kv_heads,
                 static_cast<std::int32_t>(a.rung),
                 static_cast<std::int32_t>(a.rule.rung(rung)),
                 is_last ? 0 : static_cast<std::int32_t>(a.rule.rung(rung + 1)),
                 a.rule.min_coverage,
                 a.rule.comfortable_coverage(),
                 a.rule.may_read_all,
                 a.selection.counts.data,
                 a.selection.coverage.data,
                 a.selection.outcomes.data,
                 a.budgets.data,
                 a.rungs.data,
                 a.resident_groups,
                 a.groups};
  guard_kernel<<<grid_of(div_up(items, kBlockThreads)), kBlockThreads, 0, on.stream>>>(p);
  check(cudaGetLastError());
}

}  // namespace spectx::cu
