// SPDX-License-Identifier: Apache-2.0
#include "eval/slot_replay.hpp"

#include <array>
#include <numeric>

namespace spectx::eval {
namespace {

/// Arrays of int32 in one allocation of device memory.
class DeviceInts {
 public:
  DeviceInts(Backend& backend, index_t count)
      : memory_(backend.memories().device, count * 4), left_(count) {}
  Array<std::int32_t> take(index_t count) {
    expects(count <= left_, "DeviceInts: nothing is left");
    left_ -= count;
    next_ += count;
    return {reinterpret_cast<std::int32_t*>(memory_.data()) + next_ - count, count};
  }

 private:
  Buffer memory_;
  index_t left_;
  index_t next_ = 0;
};

/// A slot map of one request whose rows are all on the host.
class SlotReplay {
 public:
  SlotReplay(Backend& backend, StreamView stream, const Recorded& selections, index_t max_length,
             index_t slots)
      : backend_(backend),
        stream_(stream),
        heads_(selections.kv_heads()),
        budget_(selections.budget()),
        ints_(backend, heads_ * (max_length + 2 * slots + 4 * budget_ + 3) + kFewInts),
        few_(ints_.take(kFewInts)),
        ids_(ints_.take(heads_ * budget_)),
        counts_(ints_.take(heads_)),
        miss_counts_(ints_.take(heads_)) {
    pool_.resident_groups = few_.data + kZero;
    pool_.durable = few_.data + kDurable;
    pool_.slot_of_token = filled(heads_ * max_length, -1);
    pool_.token_of_slot = filled(heads_ * slots, -1);
    pool_.last_used = filled(heads_ * slots, 0);
    pool_.clock = few_.data + kClock;
    pool_.groups = 1;
    pool_.kv_heads = heads_;
    pool_.slots = slots;
    pool_.max_length = max_length;
    lists_ = {.slot_of_rank = ints_.take(heads_ * budget_).data,
              .miss_ids = ints_.take(heads_ * budget_).data,
              .miss_slots = ints_.take(heads_ * budget_).data,
              .miss_counts = miss_counts_.data,
              .hit_counts = ints_.take(heads_).data,
              .max_budget = budget_};
    host_few_[kDurable] = static_cast<std::int32_t>(max_length);
    host_few_[kOne] = 1;
  }

  /// The rows that a step would fetch, all KV heads together.
  index_t misses(const Recorded& selections, index_t step, index_t position) {
    host_few_[kPosition] = static_cast<std::int32_t>(position);
    host_few_[kLength] = static_cast<std::int32_t>(position + 1);
    host_few_[kClock] = static_cast<std::int32_t>(step);
    backend_.copy(few_.data, host_few_.data(), kFewInts * 4, stream_);
    std::vector<std::int32_t> counts;
    for (index_t h = 0; h < heads_; ++h) {
      const auto ids = selections.ids(step, 0, h);
      counts.push_back(static_cast<std::int32_t>(ids.size()));
      backend_.copy(ids_.data + h * budget_, ids.data(), counts.back() * index_t{4}, stream_);
    }
    backend_.copy(counts_.data, counts.data(), heads_ * 4, stream_);
    const ScheduledItem item{.request = {0}, .first = position, .rows = 1, .selects = true};
    Batch batch;
    batch.items = {&item, 1};
    batch.num_rows = 1;
    batch.max_rows_per_item = 1;
    batch.needs_selection = true;
    batch.item = batch.request = {few_.data + kZero, 1};
    batch.row_begin = batch.lead_begin = {few_.data + kZero, 2};
    batch.position = {few_.data + kPosition, 1};
    batch.length = {few_.data + kLength, 1};
    batch.selects = {few_.data + kOne, 1};
    backend_.update_slots(
        {.batch = &batch,
         .selection = {.ids = ids_, .counts = counts_, .coverage = {}, .max_budget = budget_},
         .pool = pool_,
         .lists = lists_},
        stream_);
    HostCopy(backend_, stream_).bytes(counts.data(), miss_counts_.data, heads_ * 4);
    return std::accumulate(counts.begin(), counts.end(), index_t{0});
  }

 private:
  // The few numbers of a batch of one item: kZero and kOne are neighbours, they are its row_begin.
  enum Few { kZero, kOne, kPosition, kLength, kDurable, kClock, kFewInts };

  std::int32_t* filled(index_t count, int byte) {
    const Array<std::int32_t> array = ints_.take(count);
    backend_.fill(array.data, byte, count * 4, stream_);
    return array.data;
  }

  Backend& backend_;
  StreamView stream_;
  index_t heads_;
  index_t budget_;
  DeviceInts ints_;
  Array<std::int32_t> few_, ids_, counts_, miss_counts_;
  std::array<std::int32_t, kFewInts> host_few_{};
  KVPoolView pool_;
  StepLists lists_;
};

}  // namespace

double miss_rate(Backend& backend, StreamView stream, const Recorded& selections, index_t first,
                 index_t slots) {
  SlotReplay replay(backend, stream, selections, first + selections.steps(), slots);
  index_t misses = 0;
  index_t rows = 0;
  for (index_t step = 0; step < selections.steps(); ++step) {
    const index_t missing = replay.misses(selections, step, first + step);
    if (step == 0) continue;
    misses += missing;
    for (index_t h = 0; h < selections.kv_heads(); ++h) {
      rows += static_cast<index_t>(selections.ids(step, 0, h).size());
    }
  }
  return rows == 0 ? 0 : static_cast<double>(misses) / static_cast<double>(rows);
}

}  // namespace spectx::eval
