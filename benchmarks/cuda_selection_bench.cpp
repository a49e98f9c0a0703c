// SPDX-License-Identifier: Apache-2.0
// top_k and update_slots on a GPU.
#include <algorithm>
#include <deque>
#include <numeric>
#include <random>

#include "bench/trace.hpp"
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

/// Selections of step after step, [step][entry * budget], and the length of a request in the first.
struct Selections {
  std::vector<Ints> steps;
  index_t first_length;
  index_t growth;  // of a length, a step

  index_t length(int step) const { return first_length + step * growth; }
};

/// Adversarial: a fifth of the budget gives way to rows from anywhere in every step.
Selections drifting(index_t steps, index_t entries, index_t budget) {
  constexpr index_t kLength = 32'768;
  std::mt19937 random(3);
  Selections all{std::vector<Ints>(size(steps)), kLength, 0};
  for (index_t h = 0; h < entries; ++h) {
    Ints pool(size(kLength - 1));
    for (std::size_t i = 0; i < pool.size(); ++i) pool[i] = static_cast<std::int32_t>(i);
    std::shuffle(pool.begin(), pool.end(), random);
    for (Ints& step : all.steps) {
      for (index_t n = 0; n < budget / 5; ++n) {
        const auto chosen = random() % size(budget - 1);
        const auto other = size(budget - 1) + random() % (pool.size() - size(budget - 1));
        std::swap(pool[chosen], pool[other]);
      }
      Ints ids(pool.begin(), pool.begin() + budget - 1);
      std::sort(ids.begin(), ids.end());
      step.insert(step.end(), ids.begin(), ids.end());
      step.push_back(static_cast<std::int32_t>(kLength - 1));
    }
  }
  return all;
}

/// What a real head selected, scaled.
Selections recorded(index_t steps, index_t entries, index_t budget) {
  constexpr index_t kLength = 34'816;
  static const bench::RecordedTrace trace(SPECTX_TRACES "/selection-smollm2-b512.bin");
  const bench::ReplayShape shape{{.budget = budget, .sinks = 4, .recent_window = 64}, kKVHeads};
  Selections all{std::vector<Ints>(size(steps), Ints(size(entries * budget))), kLength, 1};
  for (int s = 0; s < static_cast<int>(steps); ++s) {
    std::int32_t* to = all.steps[size(s)].data();
    for (index_t e = 0; e < entries; ++e, to += budget) {
      bench::scaled_selection(trace, shape, e / kKVHeads, e % kKVHeads, all.length(s), to);
    }
  }
  return all;
}

/// A slot map and the lists of a step.
struct Slots {
  Slots(index_t requests, index_t budget, index_t slots, index_t length, index_t durable_length)
      : entries(requests * kKVHeads),
        map(*Gpu::get().backend, empty_map(entries, slots, length)),
        durable(*Gpu::get().backend,
                Ints(size(requests), static_cast<std::int32_t>(durable_length))),
        resident(*Gpu::get().backend, Ints(size(requests), 0)),
        rank_lists(*Gpu::get().backend, Ints(size(3 * entries * budget))),
        counts(*Gpu::get().backend, Ints(size(2 * entries))) {
    pool.resident_groups = resident.data();
    pool.durable = durable.data();
    pool.token_of_slot = map.data();
    pool.last_used = pool.token_of_slot + entries * slots;
    pool.slot_of_token = pool.last_used + entries * slots;
    pool.clock = pool.slot_of_token + entries * length;
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
  static Ints empty_map(index_t entries, index_t slots, index_t length) {
    Ints all(size(entries * (2 * slots + length) + 1), -1);
    std::fill(all.begin() + entries * slots, all.begin() + 2 * entries * slots, 0);
    all.back() = 0;
    return all;
  }

  index_t entries;
  DeviceInts map;  // tokens of slots, when they were used, slots of tokens, the clock
  DeviceInts durable, resident, rank_lists, counts;
  KVPoolView pool;
  StepLists lists;
};

/// Some steps after the buffer has filled, again and again from the same slot map.
void update_slots(benchmark::State& state,
                  Selections (*select)(index_t steps, index_t entries, index_t budget)) {
  Gpu& gpu = Gpu::get();
  const index_t requests = state.range(0);
  const index_t budget = state.range(1);
  const index_t buffer = state.range(2);
  constexpr int kFilling = 48, kSteps = 16;
  const Selections all = select(kFilling + kSteps, requests * kKVHeads, budget);
  const Slots slots(requests, budget, buffer, all.length(kFilling + kSteps), all.first_length);
  std::deque<test::BatchData> batches;  // they do not move
  std::vector<DeviceInts> ids;
  for (int s = 0; s < kFilling + kSteps; ++s) {
    batches.emplace_back(*gpu.backend, selecting(requests, all.length(s)));
    ids.emplace_back(*gpu.backend, all.steps[size(s)]);
  }
  const DeviceInts counts(*gpu.backend,
                          Ints(size(slots.entries), static_cast<std::int32_t>(budget)));
  const auto step = [&](int s) {
    gpu.backend->update_slots(
        {.batch = batches[size(s)].get(),
         .selection = {.ids = ids[size(s)], .counts = counts, .coverage = {}, .max_budget = budget},
         .pool = slots.pool,
         .lists = slots.lists},
        gpu.stream);
  };
  for (int s = 0; s < kFilling; ++s) step(s);
  gpu.backend->synchronize(gpu.stream);
  const Ints map = slots.map.read();
  const DeviceInts filled(*gpu.backend, map);
  const bench::TimedGraph graph(kSteps, [&](int s) { step(kFilling + s); });
  for (auto _ : state) {
    gpu.backend->copy(slots.map.data(), filled.data(), static_cast<index_t>(map.size()) * 4,
                      gpu.stream);
    state.SetIterationTime(graph.seconds());
  }
  const Ints figures = slots.counts.read();
  const auto misses = std::accumulate(figures.begin(), figures.begin() + slots.entries, 0.0);
  state.counters["misses"] =
      misses / static_cast<double>(slots.entries);  // of a KV head, last step
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
void with_requests(benchmark::internal::Benchmark* b) {
  b->ArgNames({"requests", "budget", "slots"});
  for (const index_t requests : {1, 8, 32}) b->Args({requests, 2048, 4096});
  b->UseManualTime()->Iterations(200);
}

BENCHMARK_CAPTURE(update_slots, recorded, recorded)
    ->Name("update_slots/cuda/recorded")
    ->Args({32, 2048, 8192})
    ->Apply(with_requests);
BENCHMARK_CAPTURE(update_slots, drifting, drifting)
    ->Name("update_slots/cuda/drifting")
    ->Apply(with_requests);

}  // namespace

BENCHMARK_MAIN();
