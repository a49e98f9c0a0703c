// SPDX-License-Identifier: Apache-2.0
// top_k and update_slots on a GPU.
#include <algorithm>
#include <random>

#include "support/batches.hpp"
#include "support/device_timer.hpp"
#include "support/random.hpp"

namespace {

using namespace spectx;
using bench::Gpu;
using Ints = std::vector<std::int32_t>;
using DeviceInts = test::DeviceArray<std::int32_t>;

constexpr index_t kKVHeads = 8;

std::size_t size(index_t n) { return static_cast<std::size_t>(n); }

std::vector<ScheduledItem> selecting(index_t requests, index_t length) {
  std::vector<ScheduledItem> items;
  for (std::int32_t r = 0; r < requests; ++r) {
    items.push_back({.request = {r}, .first = length - 1, .rows = 1, .selects = true});
  }
  return items;
}

/// Log weights lie close together: the leading digits of many are the same. Of spread 0 all are.
void top_k(benchmark::State& state, float spread) {
  Gpu& gpu = Gpu::get();
  const index_t rows = state.range(0);
  const index_t length = state.range(1);
  const index_t budget = state.range(2);
  const test::BatchData batch(*gpu.backend, selecting(rows, length));
  std::vector<float> values = test::Random(1).normal(rows * length);
  for (float& value : values) value = value * spread - 12;
  const test::DeviceMatrix scores(*gpu.backend, DType::f32, rows, length, values);
  const DeviceInts ids(*gpu.backend, Ints(size(rows * budget)));
  const DeviceInts counts(*gpu.backend, Ints(size(rows)));
  const DeviceInts saw_nan(*gpu.backend, {0});
  bench::time_replays(state, rows * length * 4, 8, [&](int) {
    gpu.backend->top_k({.scores = scores.heads(1),
                        .batch = batch.get(),
                        .rule = {.budget = budget},
                        .out = {.ids = ids, .counts = counts, .coverage = {}, .max_budget = budget},
                        .saw_nan = saw_nan.data()},
                       gpu.stream);
  });
}

/// Selections of `heads` heads that keep four fifths of their ids from step to step.
std::vector<Ints> drifting(index_t steps, index_t heads, index_t budget, index_t length) {
  std::mt19937 random(3);
  std::vector<Ints> all(size(steps));
  for (index_t h = 0; h < heads; ++h) {
    Ints pool(size(length - 1));
    for (std::size_t i = 0; i < pool.size(); ++i) pool[i] = static_cast<std::int32_t>(i);
    std::shuffle(pool.begin(), pool.end(), random);
    for (Ints& step : all) {
      for (index_t n = 0; n < budget / 5; ++n) {
        const auto chosen = random() % size(budget - 1);
        const auto other = size(budget - 1) + random() % (pool.size() - size(budget - 1));
        std::swap(pool[chosen], pool[other]);
      }
      Ints ids(pool.begin(), pool.begin() + budget - 1);
      std::sort(ids.begin(), ids.end());
      step.insert(step.end(), ids.begin(), ids.end());
      step.push_back(static_cast<std::int32_t>(length - 1));
    }
  }
  return all;
}

/// A slot map and the lists of a step.
struct Slots {
  Slots(index_t requests, index_t budget, index_t slots, index_t length)
      : entries(requests * kKVHeads),
        slot_of_token(*Gpu::get().backend, Ints(size(entries * length), -1)),
        token_of_slot(*Gpu::get().backend, Ints(size(entries * slots), -1)),
        last_used(*Gpu::get().backend, Ints(size(entries * slots), 0)),
        durable(*Gpu::get().backend, Ints(size(requests), static_cast<std::int32_t>(length))),
        resident(*Gpu::get().backend, Ints(size(requests), 0)),
        clock(*Gpu::get().backend, {0}),
        rank_lists(*Gpu::get().backend, Ints(size(3 * entries * budget))),
        counts(*Gpu::get().backend, Ints(size(2 * entries))) {
    pool.resident_groups = resident.data();
    pool.durable = durable.data();
    pool.slot_of_token = slot_of_token.data();
    pool.token_of_slot = token_of_slot.data();
    pool.last_used = last_used.data();
    pool.clock = clock.data();
    pool.groups = 8;
    pool.kv_heads = kKVHeads;
    pool.slots = slots;
    pool.max_length = length;
    lists = {rank_lists.data(),
             rank_lists.data() + entries * budget,
             rank_lists.data() + 2 * entries * budget,
             counts.data(),
             counts.data() + entries,
             budget};
  }

  index_t entries;
  DeviceInts slot_of_token, token_of_slot, last_used, durable, resident, clock, rank_lists, counts;
  KVPoolView pool;
  StepLists lists;
};

void update_slots(benchmark::State& state) {
  Gpu& gpu = Gpu::get();
  const index_t requests = state.range(0);
  const index_t budget = state.range(1);
  const index_t length = 32'768;
  constexpr int kSteps = 16;
  Slots slots(requests, budget, 2 * budget, length);
  const test::BatchData batch(*gpu.backend, selecting(requests, length));
  std::vector<DeviceInts> ids;
  for (const Ints& step : drifting(kSteps, slots.entries, budget, length)) {
    ids.emplace_back(*gpu.backend, step);
  }
  const DeviceInts counts(*gpu.backend,
                          Ints(size(slots.entries), static_cast<std::int32_t>(budget)));
  bench::time_replays(state, slots.entries * (budget + 2 * budget) * 8, kSteps, [&](int i) {
    gpu.backend->update_slots({.batch = batch.get(),
                               .selection = {.ids = ids[size(i % kSteps)],
                                             .counts = counts,
                                             .coverage = {},
                                             .max_budget = budget},
                               .pool = slots.pool,
                               .lists = slots.lists},
                              gpu.stream);
  });
}

BENCHMARK_CAPTURE(top_k, weights, 3.0F)
    ->Name("top_k/cuda/f32")
    ->ArgNames({"rows", "tokens", "budget"})
    ->Args({1, 34'816, 2048})
    ->Args({64, 34'816, 2048})
    ->Args({1, 131'072, 2048})
    ->Args({8, 131'072, 2048})
    ->Args({16, 131'072, 2048})
    ->Args({32, 131'072, 2048})
    ->Args({64, 131'072, 2048})
    ->Args({128, 131'072, 2048})
    ->Args({256, 8'192, 2048})
    ->Args({256, 34'816, 2048})
    ->Args({1, 131'072, 8192})
    ->UseManualTime();
BENCHMARK_CAPTURE(top_k, ties, 0.0F)
    ->Name("top_k_of_ties/cuda/f32")
    ->ArgNames({"rows", "tokens", "budget"})
    ->Args({1, 131'072, 2048})
    ->Args({64, 131'072, 2048})
    ->UseManualTime();
BENCHMARK(update_slots)
    ->Name("update_slots/cuda")
    ->ArgNames({"requests", "budget"})
    ->Args({1, 2048})
    ->Args({8, 2048})
    ->Args({32, 2048})
    ->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
