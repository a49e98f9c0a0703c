// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/batches.hpp"
#include "support/pool_data.hpp"
#include "support/slot_model.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr index_t kBudget = 10;
using Ids = std::vector<std::int32_t>;

constexpr index_t kEntries = 6;  // of 3 requests with 2 KV heads

/// The lists of a step in one array, on the device and, once read, on the host.
class Lists {
 public:
  explicit Lists(Backend& b) : device_(b, blank()) {}

  void clear() { device_.write(blank()); }
  void read() { host_ = device_.read(); }
  StepLists view() const {
    std::int32_t* const begin = device_.data();
    std::int32_t* const counts = begin + 3 * kList;
    return {begin, begin + kList, begin + 2 * kList, counts, counts + kEntries, kBudget};
  }
  Ids slot_of_rank(std::size_t n, std::size_t count) const { return ids(0, n, count); }
  Ids miss_ids(std::size_t n, std::size_t count) const { return ids(1, n, count); }
  Ids miss_slots(std::size_t n, std::size_t count) const { return ids(2, n, count); }
  std::int32_t num_misses(std::size_t n) const { return host_[at(3 * kList) + n]; }
  std::int32_t num_hits(std::size_t n) const { return host_[at(3 * kList + kEntries) + n]; }

 private:
  static constexpr index_t kList = kEntries * kBudget;

  static Ids blank() { return Ids(at(3 * kList + 2 * kEntries), -9); }
  Ids ids(index_t list, std::size_t n, std::size_t count) const {
    const auto begin = host_.begin() + list * kList + static_cast<index_t>(n) * kBudget;
    return {begin, begin + static_cast<index_t>(count)};
  }

  DeviceArray<std::int32_t> device_;
  Ids host_;
};

/// Requests that grow by random steps over a pool; request 1 is resident as a whole.
class SlotRun {
 public:
  SlotRun(Backend& backend, std::uint32_t seed)
      : backend_(backend),
        random_(seed),
        pool_(backend, {.requests = 3, .slots = 20}),
        lists_(backend) {
    pool_.resident_groups = {0, 3, 2};
    pool_.upload();
  }

  void step() {
    const std::vector<ScheduledItem> items = schedule();
    std::vector<Ids> ids;
    for (const ScheduledItem& item : items) {
      for (int head = 0; head < 2; ++head) ids.push_back(choose(item));
    }
    const BatchData batch(backend_, items);
    lists_.clear();
    update(batch, ids);
    ++step_;
    lists_.read();
    for (std::size_t n = 0; n < ids.size(); ++n) check(items[n / 2], n, ids[n]);
    pool_.download_slots();
    REQUIRE(pool_.clock == step_);
    compare_maps();
    for (const ScheduledItem& item : items) {
      const std::size_t r = at(item.request.value);
      // Sometimes the batch is not ended: its rows are written again.
      if (random_.below(5) != 0) length_[r] = item.first + item.rows;
      if (is_offloaded(r) && length_[r] - pool_.durable[r] > 5) {
        pool_.durable[r] = static_cast<std::int32_t>(length_[r]);
      }
      if (random_.below(8) == 0 || length_[r] > 58) rewind(item.request.value);
    }
    pool_.upload_durable();
  }

 private:
  bool is_offloaded(std::size_t request) const {
    return pool_.resident_groups[request] < pool_.s.groups;
  }
  std::vector<ScheduledItem> schedule() {
    std::vector<ScheduledItem> items;
    for (const std::int32_t r : random_.permutation(3)) {
      if (random_.below(4) == 0) continue;
      items.push_back({.request = {r},
                       .first = length_[at(r)],
                       .rows = 1 + random_.below(2),
                       .is_dense = false,
                       .selects = random_.below(6) != 0});
    }
    return items;
  }
  /// Some earlier tokens and the item's own; empty: everything is read.
  Ids choose(const ScheduledItem& item) {
    if (random_.below(10) == 0) return {};
    const index_t room = std::min(item.first, kBudget - item.rows);
    Ids ids = random_.ascending(random_.below(room + 1), item.first);
    for (index_t t = item.first; t < item.first + item.rows; ++t) {
      ids.push_back(static_cast<std::int32_t>(t));
    }
    return ids;
  }
  void update(const BatchData& batch, const std::vector<Ids>& ids) {
    Ids flat, counts;
    for (const Ids& head : ids) {
      counts.push_back(head.empty() ? kAllTokens : static_cast<std::int32_t>(head.size()));
      flat.insert(flat.end(), head.begin(), head.end());
      flat.resize(counts.size() * at(kBudget), -1);
    }
    const DeviceArray<std::int32_t> device_ids(backend_, flat);
    const DeviceArray<std::int32_t> device_counts(backend_, counts);
    run_on(backend_, [&](StreamView stream) {
      backend_.update_slots({.batch = batch.get(),
                             .selection = {.ids = device_ids,
                                           .counts = device_counts,
                                           .coverage = {},
                                           .max_budget = kBudget},
                             .pool = pool_.view(),
                             .lists = lists_.view()},
                            stream);
    });
  }
  void check(const ScheduledItem& item, std::size_t n, const Ids& ids) {
    const std::size_t r = at(item.request.value);
    SlotModel& model = models_[r * 2 + n % 2];
    if (item.selects && ids.empty()) model.forget(item.first + item.rows);
    if (!item.selects || ids.empty()) {
      REQUIRE((lists_.num_misses(n) == 0 && lists_.num_hits(n) == 0));
      return;
    }
    const index_t durable = is_offloaded(r) ? pool_.durable[r] : pool_.s.max_length;
    const SlotModel::Step expected = model.update(ids, step_, item, pool_.s.slots, durable);
    REQUIRE(lists_.slot_of_rank(n, ids.size()) == expected.slot_of_rank);
    REQUIRE(at(lists_.num_misses(n)) == expected.miss_ids.size());
    REQUIRE(lists_.miss_ids(n, expected.miss_ids.size()) == expected.miss_ids);
    REQUIRE(lists_.miss_slots(n, expected.miss_slots.size()) == expected.miss_slots);
    REQUIRE(lists_.num_hits(n) == expected.hits);
  }
  /// The tables say what the models say, in both directions.
  void compare_maps() {
    Ids slot_of_token(pool_.slot_of_token.size(), -1),
        token_of_slot(pool_.token_of_slot.size(), -1);
    for (index_t n = 0; n < 6; ++n) {
      for (const auto& [token, slot] : models_[at(n)].slot_of) {
        slot_of_token[pool_.token_entry(n / 2, n % 2, token)] = slot;
        token_of_slot[pool_.slot_entry(n / 2, n % 2, slot)] = token;
      }
    }
    REQUIRE(pool_.slot_of_token == slot_of_token);
    REQUIRE(pool_.token_of_slot == token_of_slot);
  }
  void rewind(std::int32_t request) {
    const std::size_t r = at(request);
    length_[r] = random_.below(length_[r] + 1);
    pool_.durable[r] = std::min(pool_.durable[r], static_cast<std::int32_t>(length_[r]));
    pool_.upload_durable();
    run_on(backend_, [&](StreamView stream) {
      backend_.forget_slots({.pool = pool_.view(), .request = {request}, .first = length_[r]},
                            stream);
    });
    for (std::size_t head = 0; head < 2; ++head) models_[r * 2 + head].forget(length_[r]);
    pool_.download_slots();
    compare_maps();
  }

  Backend& backend_;
  Random random_;
  PoolData pool_;
  Lists lists_;
  std::vector<index_t> length_ = {0, 0, 0};
  std::vector<SlotModel> models_ = std::vector<SlotModel>(6);
  std::int32_t step_ = 0;
};

}  // namespace

TEST_CASE("update_slots and forget_slots follow a plain map through random steps") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const std::uint32_t seed = GENERATE(range(1U, unless_slow(9U, 3U)));
  CAPTURE(b.name, seed);
  SlotRun run(*b.backend, seed);
  for (int step = 0; step < unless_slow(150, 15); ++step) {
    CAPTURE(step);
    run.step();
  }
}
