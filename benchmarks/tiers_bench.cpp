// SPDX-License-Identifier: Apache-2.0
// What moves rows between the tiers: update_slots, gather_rows, scatter_rows, move_rows, and the
// rings of features. A group of four layers at length 8,192, budget 512, 1,024 slots.
#include <cstring>

#include "support/pool_data.hpp"
#include "support/rows.hpp"

namespace spectx::bench {
namespace {

constexpr index_t kLength = 8192, kBudget = 512, kSlots = 1024, kLayers = 4;

test::PoolShape shape_of(const ModelSizes& m) {
  return {.requests = 1,
          .groups = 1,
          .group_layers = kLayers,
          .layers = kLayers,
          .kv_heads = m.kv_heads,
          .k_dim = m.head_dim,
          .v_dim = m.head_dim,
          .page_rows = 64,
          .max_length = kLength,
          .slots = kSlots};
}

/// A request with an offloaded group, and selections that change by a fifth from step to step.
struct Offloaded {
  explicit Offloaded(const ModelSizes& sizes)
      : m(sizes),
        backend(Machine::get().backend()),
        pool(backend, shape_of(m)),
        batch(backend, decoding(kLength)),
        entries(m.kv_heads * kBudget) {
    pool.durable = {static_cast<std::int32_t>(kLength - 1)};
    pool.upload();
    for (int list = 0; list < 5; ++list) lists.emplace_back(backend, Ints(test::at(entries)));
    counts.assign(test::at(m.kv_heads), static_cast<std::int32_t>(kBudget));
    test::Random random(5);
    Ints chosen = random.permutation(kLength - 1);
    for (index_t step = 0; step < kSteps; ++step) {
      for (index_t i = 0; i < kBudget / 5; ++i) {
        std::swap(chosen[test::at(random.below(kBudget - 1))],
                  chosen[test::at(kBudget + random.below(kLength - 1 - kBudget))]);
      }
      Ints ids(chosen.begin(), chosen.begin() + kBudget - 1);
      std::sort(ids.begin(), ids.end());
      ids.push_back(static_cast<std::int32_t>(kLength - 1));
      selections.emplace_back();
      for (index_t h = 0; h < m.kv_heads; ++h) {
        selections.back().insert(selections.back().end(), ids.begin(), ids.end());
      }
    }
  }

  UpdateSlotsArgs update(index_t step) {
    return {.batch = batch.get(),
            .selection = {.ids = {selections[test::at(step % kSteps)].data(), entries},
                          .counts = {counts.data(), m.kv_heads},
                          .coverage = {},
                          .max_budget = kBudget},
            .pool = pool.view(),
            .lists = step_lists()};
  }
  StepLists step_lists() const {
    return {lists[0].data(), lists[1].data(), lists[2].data(),
            lists[3].data(), lists[4].data(), kBudget};
  }
  index_t missed() const {
    const Ints misses = lists[3].read();
    return std::accumulate(misses.begin(), misses.begin() + m.kv_heads, index_t{0});
  }

  using Ints = std::vector<std::int32_t>;
  static constexpr index_t kSteps = 64;

  ModelSizes m;
  Backend& backend;
  test::PoolData pool;
  test::BatchData batch;
  index_t entries;
  std::vector<test::DeviceArray<std::int32_t>> lists;
  Ints counts;
  std::vector<Ints> selections;
};

void update_slots(benchmark::State& state) {
  Offloaded o(model(state.range(0)));
  o.backend.update_slots(o.update(0), {});
  const bool is_right = o.missed() == o.m.kv_heads * (kBudget - 1);  // nothing was there
  state.SetLabel(o.m.name);
  time(state, bytes_moved(o.update(0)), is_right ? "" : "update_slots is wrong",
       [&](index_t i) { o.backend.update_slots(o.update(i), {}); });
}

/// The whole selection, as in the first step of a request.
void gather_rows(benchmark::State& state) {
  Offloaded o(model(state.range(0)));
  o.backend.update_slots(o.update(0), {});
  const GatherRowsArgs args{
      .batch = o.batch.get(), .lists = o.step_lists(), .pool = o.pool.view(), .group = 0};
  const auto run = [&](index_t) { o.backend.gather_rows(args, {}); };
  run(0);
  o.pool.download();
  const std::int32_t token = o.selections[0][0];
  const index_t slot = o.pool.slot_of_token[o.pool.token_entry(0, 0, token)];
  const bool is_right =
      std::memcmp(o.pool.device_pages.data() + o.pool.device_row(true, 0, 1, 0, slot),
                  o.pool.host_pages.data() + o.pool.host_row(0, 1, 0, token),
                  test::at(o.pool.row_bytes())) == 0;
  state.SetLabel(o.m.name);
  time(state, bytes_moved(args, o.missed()), is_right ? "" : "gather_rows is wrong", run);
}

void scatter_rows(benchmark::State& state) {
  Offloaded o(model(state.range(0)));
  constexpr index_t kBatch = 32;
  for (index_t h = 0; h < o.m.kv_heads; ++h) {
    for (index_t i = 0; i < kBatch; ++i) o.pool.put(0, h, kLength - kBatch + i, 7 * i);
  }
  o.pool.upload();
  const ScatterRowsArgs args{.batch = o.batch.get(), .pool = o.pool.view(), .write_batch = kBatch};
  const auto run = [&](index_t) {
    *args.pool.durable = static_cast<std::int32_t>(kLength - kBatch);
    o.backend.scatter_rows(args, {});
  };
  run(0);
  const bool is_right = *args.pool.durable == kLength;
  state.SetLabel(o.m.name);
  time(state, bytes_moved(args, kBatch * kLayers), is_right ? "" : "scatter_rows is wrong", run);
}

void move_rows(benchmark::State& state) {
  Offloaded o(model(state.range(0)));
  const KVPoolView pool = o.pool.view();
  const MoveRowsArgs args{.pool = pool,
                          .request = {0},
                          .group = 0,
                          .from = {RowPlace::Kind::tokens, o.pool.token_pages(0, 0)},
                          .to = {RowPlace::Kind::host, pool.host_pages_of(0, 0)},
                          .first = 0,
                          .last = kLength};
  const auto run = [&](index_t) { o.backend.move_rows(args, {}); };
  run(0);
  o.pool.download();
  const bool is_right =
      std::memcmp(o.pool.device_pages.data() + o.pool.device_row(false, 0, 2, 1, 4000),
                  o.pool.host_pages.data() + o.pool.host_row(0, 2, 1, 4000),
                  test::at(o.pool.row_bytes())) == 0;
  state.SetLabel(o.m.name);
  time(state, bytes_moved(args), is_right ? "" : "move_rows is wrong", run);
}

void rings(benchmark::State& state) {
  const ModelSizes& m = model(state.range(0));
  Backend& backend = Machine::get().backend();
  const test::BatchData batch(backend, decoding(kLength));
  const Tensors rows(DType::f32, 1, m.hidden);
  const Tensors ring(DType::f32, 1, 64 * m.hidden);
  const Tensors out(DType::f32, 1, m.hidden);
  const StoreRingArgs store{.rows = rows.view(), .batch = batch.get(), .ring = ring.heads(64)};
  const LoadRingArgs load{.ring = ring.heads(64), .batch = batch.get(), .out = out.view()};
  const auto run = [&](index_t) {
    backend.store_ring(store, {});
    backend.load_ring(load, {});
  };
  run(0);
  const std::size_t before = test::at((kLength - 2) % 64 * m.hidden);
  const bool is_right = out.read()[0] == ring.read()[before];
  state.SetLabel(m.name);
  time(state, bytes_moved(store) + bytes_moved(load), is_right ? "" : "a ring is wrong", run);
}

void both_models(benchmark::internal::Benchmark* b) {
  b->ArgName("model")->DenseRange(0, 1)->UseRealTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(update_slots)->Name("update_slots/cpu")->Apply(both_models);
BENCHMARK(gather_rows)->Name("gather_rows/cpu/bf16")->Apply(both_models);
BENCHMARK(scatter_rows)->Name("scatter_rows/cpu/bf16")->Apply(both_models);
BENCHMARK(move_rows)->Name("move_rows/cpu/bf16")->Apply(both_models);
BENCHMARK(rings)->Name("store_ring+load_ring/cpu/f32")->Apply(both_models);

}  // namespace
}  // namespace spectx::bench
