// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/batches.hpp"
#include "support/pool_data.hpp"
#include "support/slot_model.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

using Ids = std::vector<std::int32_t>;
constexpr index_t kLength = 40'000;
constexpr std::int32_t kClock = 1'000'000;

/// One head of one request, whose slots hold random tokens that were last used up to `longest`
/// steps ago, but for a tenth that is free.
class LargeMap {
 public:
  LargeMap(Backend& backend, index_t slots, index_t longest)
      : backend_(backend),
        random_(static_cast<std::uint32_t>(slots + longest)),
        pool_(backend, {.requests = 1,
                        .groups = 1,
                        .group_layers = 1,
                        .layers = 1,
                        .kv_heads = 1,
                        .max_length = kLength,
                        .slots = slots}) {
    pool_.clock = kClock;
    pool_.durable = {kLength - 5000};
    const Ids tokens = random_.permutation(kLength - 1);
    for (std::int32_t slot = 0; slot < slots; ++slot) {
      if (random_.below(10) == 0) continue;
      const std::int32_t token = tokens[at(slot)];
      pool_.token_of_slot[at(slot)] = token;
      pool_.slot_of_token[at(token)] = slot;
      pool_.last_used[at(slot)] = kClock - static_cast<std::int32_t>(random_.below(longest));
      model_.slot_of[token] = slot;
      model_.last_used[slot] = pool_.last_used[at(slot)];
    }
    pool_.upload();
  }

  /// Selects `count` tokens, the step's own row among them.
  void check(index_t count) {
    Ids ids = random_.ascending(count - 1, kLength - 1);
    ids.push_back(kLength - 1);
    const ScheduledItem item{.request = {0}, .first = kLength - 1, .rows = 1, .selects = true};
    const BatchData batch(backend_, {item});
    const DeviceArray<std::int32_t> device_ids(backend_, ids);
    const DeviceArray<std::int32_t> counts(backend_, {static_cast<std::int32_t>(count)});
    const DeviceArray<std::int32_t> lists(backend_, Ids(at(3 * count), -9));
    const DeviceArray<std::int32_t> totals(backend_, {-9, -9});
    run_on(backend_, [&](StreamView stream) {
      backend_.update_slots(
          {.batch = batch.get(),
           .selection = {.ids = device_ids, .counts = counts, .coverage = {}, .max_budget = count},
           .pool = pool_.view(),
           .lists = {lists.data(), lists.data() + count, lists.data() + 2 * count, totals.data(),
                     totals.data() + 1, count}},
          stream);
    });
    const SlotModel::Step expected =
        model_.update(ids, kClock + 1, item, pool_.s.slots, pool_.durable[0]);
    const Ids all = lists.read();
    const auto misses = static_cast<index_t>(expected.miss_ids.size());
    REQUIRE(totals.read() == Ids{static_cast<std::int32_t>(misses), expected.hits});
    REQUIRE(Ids(all.begin(), all.begin() + count) == expected.slot_of_rank);
    REQUIRE(Ids(all.begin() + count, all.begin() + count + misses) == expected.miss_ids);
    REQUIRE(Ids(all.begin() + 2 * count, all.begin() + 2 * count + misses) == expected.miss_slots);
    pool_.download();
    for (const auto& [token, slot] : model_.slot_of) {
      REQUIRE((pool_.slot_of_token[at(token)] == slot && pool_.token_of_slot[at(slot)] == token));
    }
  }

 private:
  Backend& backend_;
  Random random_;
  PoolData pool_;
  SlotModel model_;
};

}  // namespace

TEST_CASE("update_slots takes the oldest of many slots, whatever their ages") {
  const NamedBackend b = GENERATE(from_range(backends()));
  using Numbers = std::vector<index_t>;
  const auto [slots, longest, count] = GENERATE(from_range(combinations(
      Numbers{3000, 4096, 12'345, 30'000}, Numbers{1, 7, 300, 70'000}, Numbers{2048, 2500})));
  CAPTURE(b.name, slots, longest, count);
  LargeMap(*b.backend, slots, longest).check(count);
}
