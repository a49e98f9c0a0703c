// SPDX-License-Identifier: Apache-2.0
// attend and score on a GPU at the shape of Llama-3.1-8B (32 query heads, 8 KV heads,
// head dim 128, bf16), and a device copy to hold them against. Bytes are K and V, or K, read once.
#include <algorithm>
#include <random>

#include "support/batches.hpp"
#include "support/device_timer.hpp"
#include "support/random.hpp"

namespace {

using namespace spectx;
using bench::Gpu;

constexpr index_t kQueryHeads = 32, kKVHeads = 8, kDim = 128, kPageRows = 64;

/// A buffer of normal numbers: a pattern of 4 MiB again and again.
Buffer random_rows(index_t bytes) {
  Gpu& gpu = Gpu::get();
  constexpr index_t kPattern = index_t{4} << 20;
  Buffer rows(gpu.backend->memories().device, bytes);
  const test::DeviceMatrix pattern(*gpu.backend, DType::bf16, 1, kPattern / 2,
                                   test::Random(4).normal(kPattern / 2));
  for (index_t at = 0; at < bytes; at += kPattern) {
    gpu.backend->copy(rows.data() + at, pattern.view().data, std::min(kPattern, bytes - at),
                      gpu.stream);
  }
  gpu.backend->synchronize(gpu.stream);
  return rows;
}

/// Rows of `requests` requests in pages that lie at random; as many sets of them as the cache does
/// not hold.
struct Rows {
  Rows(index_t num_requests, index_t rows, index_t row_bytes, index_t read_bytes,
       PageOrder order = PageOrder::heads)
      : requests(num_requests),
        columns((rows + kPageRows - 1) / kPageRows),
        sets(static_cast<int>(std::clamp(kMoreThanCache / read_bytes, index_t{1}, index_t{32}))),
        arena(random_rows(sets * requests * columns * kPageRows * kKVHeads * row_bytes)),
        table(*Gpu::get().backend, addresses(sets * requests * columns, row_bytes)) {
    view.table = table.data();
    view.table_stride = columns;
    view.page_rows = kPageRows;
    const PageStrides strides =
        page_strides(order, kPageRows, kKVHeads, row_bytes / 2, row_bytes / 2);
    view.row_stride = strides.row;
    view.head_stride = strides.head;
    view.v_offset = strides.v;
    view.dtype = DType::bf16;
    view.kv_heads = kKVHeads;
    view.k_dim = view.v_dim = kDim;
  }
  std::vector<std::byte*> addresses(index_t pages, index_t row_bytes) const {
    std::vector<std::byte*> all;
    for (index_t p = 0; p < pages; ++p) {
      all.push_back(arena.data() + p * kPageRows * kKVHeads * row_bytes);
    }
    std::shuffle(all.begin(), all.end(), std::mt19937(1));
    return all;
  }
  /// `of` with the pages of set i.
  KVView set(KVView of, int i) const {
    of.table += i * requests * columns;
    return of;
  }

  static constexpr index_t kMoreThanCache = index_t{256} << 20;
  index_t requests, columns;
  int sets;
  Buffer arena;
  test::DeviceArray<std::byte*> table;
  KVView view;
};

std::vector<ScheduledItem> decode_items(index_t requests, index_t length) {
  std::vector<ScheduledItem> items;
  for (std::int32_t r = 0; r < requests; ++r) {
    items.push_back({.request = {r}, .first = length - 1, .rows = 1, .selects = true});
  }
  return items;
}

test::DeviceMatrix queries(index_t rows) {
  return {*Gpu::get().backend, DType::bf16, rows, kQueryHeads * kDim,
          test::Random(1).normal(rows * kQueryHeads * kDim)};
}

void run_attend(benchmark::State& state, const Rows& rows, const KVView& view, index_t length,
                index_t ranks) {
  Gpu& gpu = Gpu::get();
  const index_t requests = state.range(0);
  const test::BatchData batch(*gpu.backend, decode_items(requests, length));
  const test::DeviceMatrix q = queries(requests);
  const test::DeviceMatrix out(*gpu.backend, DType::bf16, requests, kQueryHeads * kDim);
  const index_t bytes = requests * ranks * kKVHeads * 2 * kDim * 2;
  bench::time_replays(state, bytes, std::max(rows.sets, 4), [&](int i) {
    gpu.backend->attend({.q = q.heads(kQueryHeads),
                         .kv = rows.set(view, i % rows.sets),
                         .batch = batch.get(),
                         .out = out.heads(kQueryHeads)},
                        gpu.stream);
  });
}

void attend_all(benchmark::State& state, PageOrder order) {
  const index_t row_bytes = 2 * kDim * 2;
  const Rows rows(state.range(0), state.range(1), row_bytes,
                  state.range(0) * state.range(1) * kKVHeads * row_bytes, order);
  run_attend(state, rows, rows.view, state.range(1), state.range(1));
}

/// The last 2,048 rows of a prompt; operations are those of the ranks that each sees.
void attend_prompt(benchmark::State& state) {
  Gpu& gpu = Gpu::get();
  constexpr index_t kRows = 2048;
  const index_t length = state.range(0);
  const index_t row_bytes = 2 * kDim * 2;
  const index_t bytes = length * kKVHeads * row_bytes;
  const Rows rows(1, length, row_bytes, bytes);
  const test::BatchData batch(*gpu.backend,
                              {{.request = {0}, .first = length - kRows, .rows = kRows}});
  const test::DeviceMatrix q = queries(kRows);
  const test::DeviceMatrix out(*gpu.backend, DType::bf16, kRows, kQueryHeads * kDim);
  bench::time_replays(state, bytes, std::max(rows.sets, 4), [&](int i) {
    gpu.backend->attend({.q = q.heads(kQueryHeads),
                         .kv = rows.set(rows.view, i % rows.sets),
                         .batch = batch.get(),
                         .out = out.heads(kQueryHeads)},
                        gpu.stream);
  });
  const index_t seen = kRows * length - kRows * (kRows - 1) / 2;
  state.counters["FLOP/s"] = benchmark::Counter(static_cast<double>(4 * seen * kQueryHeads * kDim),
                                                benchmark::Counter::kIsIterationInvariantRate);
}

/// 2,048 chosen rows of a long request, in slots at random.
void attend_slots(benchmark::State& state, PageOrder order) {
  Gpu& gpu = Gpu::get();
  const index_t requests = state.range(0);
  const index_t budget = state.range(1);
  const index_t length = 32'768;
  const index_t row_bytes = 2 * kDim * 2;
  const Rows rows(requests, 2 * budget, row_bytes, requests * budget * kKVHeads * row_bytes, order);
  std::vector<std::int32_t> ids, slots;
  test::Random random(2);
  for (index_t entry = 0; entry < requests * kKVHeads; ++entry) {
    const auto own = random.ascending(budget - 1, length - 1);
    ids.insert(ids.end(), own.begin(), own.end());
    ids.push_back(static_cast<std::int32_t>(length - 1));
    const auto places = random.permutation(2 * budget);
    slots.insert(slots.end(), places.begin(), places.begin() + budget);
  }
  const test::DeviceArray<std::int32_t> device_ids(*gpu.backend, ids);
  const test::DeviceArray<std::int32_t> device_slots(*gpu.backend, slots);
  const test::DeviceArray<std::int32_t> counts(
      *gpu.backend, std::vector<std::int32_t>(static_cast<std::size_t>(requests * kKVHeads),
                                              static_cast<std::int32_t>(budget)));
  const test::DeviceArray<std::int32_t> resident(
      *gpu.backend, std::vector<std::int32_t>(static_cast<std::size_t>(requests), 0));
  KVView view = rows.view;
  view.counts = counts.data();
  view.ids = device_ids.data();
  view.slot_of_rank = device_slots.data();
  view.max_budget = budget;
  view.resident_groups = resident.data();
  run_attend(state, rows, view, length, budget);
}

void score(benchmark::State& state) {
  Gpu& gpu = Gpu::get();
  const index_t requests = state.range(0);
  const index_t length = state.range(1);
  const index_t capacity = state.range(2);
  const index_t bytes = requests * length * kKVHeads * (kDim * 2 + 4);
  const Rows rows(requests, length, kDim * 2, bytes);
  const test::BatchData batch(*gpu.backend, decode_items(requests, length));
  const test::DeviceMatrix q = queries(requests);
  const test::DeviceMatrix log_sum(*gpu.backend, DType::f32, requests, kQueryHeads);
  Buffer scores(gpu.backend->memories().device, requests * kKVHeads * capacity * 4);
  const TensorView view = split_heads(
      matrix_view(scores.data(), DType::f32, requests, kKVHeads * capacity), kKVHeads, capacity);
  bench::time_replays(state, bytes, std::max(rows.sets, 4), [&](int i) {
    KVView keys = rows.set(rows.view, i % rows.sets);
    keys.v_offset = keys.v_dim = 0;
    gpu.backend->score({.q = q.heads(kQueryHeads),
                        .keys = keys,
                        .batch = batch.get(),
                        .scale = 0.1F,
                        .log_sum = log_sum.view(),
                        .scores = view},
                       gpu.stream);
  });
}

void device_copy(benchmark::State& state) {
  Gpu& gpu = Gpu::get();
  const index_t bytes = index_t{2} << 30;
  Buffer a(gpu.backend->memories().device, bytes);
  Buffer b(gpu.backend->memories().device, bytes);
  bench::time_on_device(state, 2 * bytes,
                        [&](int) { gpu.backend->copy(b.data(), a.data(), bytes, gpu.stream); });
}

BENCHMARK(device_copy)->Name("device_copy/cuda")->UseManualTime();
BENCHMARK_CAPTURE(attend_all, heads, PageOrder::heads)
    ->Name("attend_all/cuda/bf16")
    ->ArgNames({"requests", "tokens"})
    ->Args({1, 2048})
    ->ArgsProduct({{1, 4, 16, 64}, {4096, 34'816, 131'072}})
    ->Args({13, 34'816})
    ->UseManualTime();
BENCHMARK(attend_prompt)
    ->Name("attend_prompt/cuda/bf16")
    ->ArgNames({"tokens"})
    ->ArgsProduct({{2048, 8192, 32'768}})
    ->UseManualTime();
BENCHMARK_CAPTURE(attend_slots, heads, PageOrder::heads)
    ->Name("attend_slots/cuda/bf16")
    ->ArgNames({"requests", "budget"})
    ->ArgsProduct({{1, 4, 16, 28, 32, 40, 64}, {2048}})
    ->UseManualTime();
BENCHMARK_CAPTURE(attend_all, split_rows, PageOrder::split_rows)
    ->Name("attend_all_split_rows/cuda/bf16")
    ->ArgNames({"requests", "tokens"})
    ->Args({1, 4096})
    ->Args({16, 34'816})
    ->UseManualTime();
BENCHMARK_CAPTURE(attend_slots, split_rows, PageOrder::split_rows)
    ->Name("attend_slots_split_rows/cuda/bf16")
    ->ArgNames({"requests", "budget"})
    ->ArgsProduct({{1, 16, 32}, {2048}})
    ->UseManualTime();
BENCHMARK(score)
    ->Name("score/cuda/bf16")
    ->ArgNames({"requests", "tokens", "capacity"})
    ->ArgsProduct({{1, 4, 16, 64}, {4096}, {4096}})
    ->ArgsProduct({{1, 4, 16, 64}, {34'816}, {34'816}})
    ->ArgsProduct({{1, 4, 16, 64}, {131'072}, {131'072}})
    ->ArgsProduct({{1, 16}, {4096, 34'816}, {131'072}})
    ->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
