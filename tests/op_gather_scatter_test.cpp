// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/batches.hpp"
#include "support/pool_data.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr index_t kBudget = 12;

ScheduledItem selecting(int request, index_t first, index_t rows = 1) {
  return {.request = {request}, .first = first, .rows = rows, .is_dense = false, .selects = true};
}

/// Copies a token's run between its slot and the host tier, by the layouts of PoolData.
void copy_run(PoolData& pool, index_t request, index_t group, index_t head, index_t token,
              index_t slot, bool to_host) {
  const index_t end = std::min((group + 1) * pool.s.group_layers, pool.s.layers);
  for (index_t layer = group * pool.s.group_layers; layer < end; ++layer) {
    const std::size_t device = pool.device_row(true, request, layer, head, slot);
    const std::size_t host = pool.host_row(request, layer, head, token);
    if (to_host) {
      pool.copy_to_host(device, host, layer);
    } else {
      pool.copy_to_device(host, device, layer);
    }
  }
}

struct Misses {
  Misses(index_t items, index_t heads)
      : ids(at(items * heads * kBudget), -1), slots(ids), counts(at(items * heads), 0) {}

  void add(index_t entry, index_t token, index_t slot) {
    const index_t n = counts[at(entry)]++;
    ids[at(entry * kBudget + n)] = static_cast<std::int32_t>(token);
    slots[at(entry * kBudget + n)] = static_cast<std::int32_t>(slot);
  }

  std::vector<std::int32_t> ids, slots, counts;
};

/// A random slot for every token of [first, last), for each head.
void hold(PoolData& pool, index_t request, index_t first, index_t last) {
  Random random(8);
  for (index_t head = 0; head < pool.s.kv_heads; ++head) {
    const std::vector<std::int32_t> slots = random.permutation(pool.s.slots);
    for (index_t t = first; t < last; ++t) pool.put(request, head, t, slots[at(t - first)]);
  }
}

}  // namespace

TEST_CASE("gather_rows fetches the misses of one group into their slots, where it is offloaded") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [kind, group_of_step, order] =
      GENERATE(from_range(combinations(row_kinds(), std::vector<index_t>{0, 1, 2}, page_orders())));
  const PoolShape shape = tier_shape(3, kind.first, kind.second, order);
  const index_t group = group_of_step;
  CAPTURE(b.name, group, dtype_name(shape.dtype), dtype_name(shape.host_dtype), shape.k_dim,
          shape.order);
  PoolData pool(*b.backend, shape);
  pool.resident_groups = {1, 0, 3};
  pool.upload();
  PoolData expected(*b.backend, shape);
  // Item 1 does not select: what its list says is not for this step.
  const std::vector<ScheduledItem> items = {selecting(1, 40),
                                            {.request = {0}, .first = 20, .rows = 1},
                                            selecting(0, 30),
                                            selecting(2, 50)};
  Misses misses(4, 2);
  for (const index_t item : {0, 1, 2, 3}) {
    Random random(static_cast<std::uint32_t>(item));
    for (index_t head = 0; head < 2; ++head) {
      const index_t count = item == 0 && head == 1 ? 0 : 5 + head;
      const std::vector<std::int32_t> tokens = random.ascending(count, 30);
      const std::vector<std::int32_t> slots = random.permutation(16);
      for (index_t i = 0; i < count; ++i) {
        misses.add(item * 2 + head, tokens[at(i)], slots[at(i)]);
        const index_t request = items[at(item)].request.value;
        const bool is_offloaded = group >= pool.resident_groups[at(request)];
        if (!items[at(item)].selects || !is_offloaded) continue;
        copy_run(expected, request, group, head, tokens[at(i)], slots[at(i)], false);
      }
    }
  }
  const BatchData batch(*b.backend, items);
  const DeviceArray<std::int32_t> ids(*b.backend, misses.ids);
  const DeviceArray<std::int32_t> slots(*b.backend, misses.slots);
  const DeviceArray<std::int32_t> counts(*b.backend, misses.counts);
  StepLists lists;
  lists.miss_ids = ids.data();
  lists.miss_slots = slots.data();
  lists.miss_counts = counts.data();
  lists.max_budget = kBudget;
  // As a whole, or its first layers and then the others.
  const index_t lead = static_cast<index_t>(order) % 2;
  run_on(*b.backend, [&](StreamView stream) {
    GatherRowsArgs rows{.batch = batch.get(), .lists = lists, .pool = pool.view(), .group = group};
    rows.num_layers = lead;
    b.backend->gather_rows(rows, stream);
    rows.first_layer = std::exchange(rows.num_layers, 0);
    if (lead > 0 && rows.layers() > 0) b.backend->gather_rows(rows, stream);
  });
  pool.download();
  REQUIRE((pool.device_pages == expected.device_pages));
  REQUIRE((pool.host_pages == expected.host_pages));
}

TEST_CASE("Writes are due every write_batch tokens, of each request at another place if no loss") {
  const HostRun run{.is_lossy = GENERATE(false, true)};
  const index_t write_batch = GENERATE(from_range(std::vector<index_t>{1, 8, 32}));
  const index_t rows = GENERATE(from_range(std::vector<index_t>{1, 5}));  // of a step
  CAPTURE(run.is_lossy, write_batch, rows);
  std::vector<index_t> due(at(write_batch), 0);  // by the step
  for (std::int32_t r = 0; r < 64; ++r) {
    index_t durable = 7;
    for (index_t length = 8; length <= 7 + 3 * write_batch; length += rows) {
      if (is_write_due(run, {r}, durable, length, write_batch)) {
        durable = length;
        ++due[at(length % write_batch)];
      }
      REQUIRE(length - durable < write_batch);
    }
  }
  std::vector<index_t> expected(at(write_batch), 3 * 64 / write_batch);  // three of a request
  if (run.is_lossy) {
    expected.assign(at(write_batch), 0);
    expected[0] = 3 * 64;
  }
  if (rows == 1) REQUIRE(due == expected);
}

TEST_CASE("scatter_rows writes waiting rows through once they are due") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [kind, batch_rows, order] = GENERATE(
      from_range(combinations(row_kinds(), std::vector<index_t>{1, 3, 4, 5}, page_orders())));
  const PoolShape shape = tier_shape(4, kind.first, kind.second, order);
  const index_t write_batch = batch_rows;
  CAPTURE(b.name, write_batch, dtype_name(shape.dtype), dtype_name(shape.host_dtype), shape.k_dim,
          shape.order);
  PoolData pool(*b.backend, shape);
  PoolData expected(*b.backend, shape);
  for (PoolData* p : {&pool, &expected}) {
    p->resident_groups = {1, 0, 3, 2};
    p->durable = {30, 20, 10, 40};
    hold(*p, 0, 26, 34);
    hold(*p, 1, 20, 24);
    hold(*p, 2, 8, 20);
    hold(*p, 3, 40, 44);
  }
  // Request 2 is resident as a whole, request 3 does not select.
  const std::vector<ScheduledItem> items = {selecting(1, 23),
                                            selecting(0, 32, 2),
                                            selecting(2, 19),
                                            {.request = {3}, .first = 43, .rows = 1}};
  for (const index_t request : {0, 1}) {
    const index_t length = request == 0 ? 34 : 24;
    const index_t durable = expected.durable[at(request)];
    const index_t place = shape.host_dtype == shape.dtype ? request % write_batch : 0;
    if ((length + place) / write_batch == (durable + place) / write_batch) continue;
    for (index_t g = expected.resident_groups[at(request)]; g < expected.s.groups; ++g) {
      for (index_t head = 0; head < 2; ++head) {
        for (index_t t = durable; t < length; ++t) {
          copy_run(expected, request, g, head, t,
                   expected.slot_of_token[expected.token_entry(request, head, t)], true);
        }
      }
    }
    expected.durable[at(request)] = static_cast<std::int32_t>(length);
  }
  pool.upload();
  const BatchData batch(*b.backend, items);
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->scatter_rows({.batch = batch.get(), .pool = pool.view(), .write_batch = write_batch},
                            stream);
  });
  pool.download();
  REQUIRE((pool.host_pages == expected.host_pages));
  REQUIRE((pool.device_pages == expected.device_pages));
  REQUIRE(pool.durable == expected.durable);
}
