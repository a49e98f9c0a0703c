// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <vector>

#include "spectx/kv_pool.hpp"

namespace spectx {

/// How a step read its rows.
enum class Path : std::uint8_t { dense, selected_resident, selected_offloaded, mixed };

constexpr const char* path_name(Path path) noexcept {
  switch (path) {
    case Path::dense:
      return "dense";
    case Path::selected_resident:
      return "selected_resident";
    case Path::selected_offloaded:
      return "selected_offloaded";
    case Path::mixed:
      break;
  }
  return "mixed";
}

/// What one step moved and waited for. Rows are counted once for each KV head of the items that
/// select in requests with offloaded groups.
struct StepReport {
  Path path = Path::dense;
  index_t step = -1;       // steps ended before it; -1: none has arrived
  bool is_lossy = false;   // a row that it read may have been in a host tier of a smaller type
  index_t hits = 0;        // selected rows that were in a slot
  index_t misses = 0;      // selected rows that were fetched
  index_t bytes = 0;       // fetched, all groups
  double transfer_us = 0;  // all groups' transfers
  double exposed_us = 0;   // what the compute stream waited for them
  double floor_us = 0;     // least wait possible: max over groups of (transfers up to it - compute
                           // before it)
  // Of the items that select:
  double mean_budget = 0;     // rows that a KV head read; 0: no item selects
  index_t guard_raised = 0;   // items that read more than the budget, enough
  index_t guard_full = 0;     // that read everything, for max_budget was too little
  index_t guard_limited = 0;  // that read max_budget, though it was too little
};

namespace detail {

/// Collects a step's device counts and time stamps and turns them into a StepReport once they have
/// arrived on the host. Owns the device stamps' host copies.
class StepMeter {
 public:
  StepMeter(Backend& backend, const KVPool& pool) : backend_(backend), pool_(pool) {
    const auto counts = static_cast<std::size_t>(pool.plan().max_requests * pool.shape().kv_heads);
    for (Record& record : records_) {
      record.event.emplace(backend.make_event());
      record.hits.resize(counts);
      record.misses.resize(counts);
      record.stamps.resize(static_cast<std::size_t>(pool.layout().groups * kStamps));
      record.miss_bytes.resize(static_cast<std::size_t>(pool.plan().max_requests));
      record.lengths.resize(static_cast<std::size_t>(pool.plan().max_requests));
      record.counts.resize(counts);
      record.outcomes.resize(static_cast<std::size_t>(pool.plan().max_requests));
    }
  }

  void point(std::uint64_t* device_stamps) { stamps_ = device_stamps; }

  void begin_transfer(index_t group, StreamView s) { stamp(group, 0, s); }
  void end_transfer(index_t group, StreamView s) { stamp(group, 1, s); }
  void begin_wait(index_t group, StreamView s) { stamp(group, 2, s); }
  void end_wait(index_t group, StreamView s) { stamp(group, 3, s); }

  /// Clears the stamps of a step; `stream` is where it begins.
  void begin_step(StreamView stream) {
    if (stamps_ != nullptr) {
      backend_.fill(stamps_, 0, pool_.layout().groups * kStamps * 8, stream);
    }
  }

  /// Sends the step's figures to the host, after `stream`, which follows the step.
  void end_step(const Batch& batch, const Selection& selection, const StepLists& lists,
                StreamView stream) {
    Record& record = records_[static_cast<std::size_t>(steps_ % kDepth)];
    record.step = steps_++;
    describe(batch, record);
    const index_t bytes = record.items * pool_.shape().kv_heads * 4;
    record.has_outcomes = batch.needs_selection && selection.outcomes.size > 0;
    if (batch.needs_selection) {
      backend_.copy(record.counts.data(), selection.counts.data, bytes, stream);
    }
    if (record.has_outcomes) {
      backend_.copy(record.outcomes.data(), selection.outcomes.data, record.items * 4, stream);
    }
    if (stamps_ != nullptr && record.path != Path::dense) {
      backend_.copy(record.hits.data(), lists.hit_counts, bytes, stream);
      backend_.copy(record.misses.data(), lists.miss_counts, bytes, stream);
    }
    if (stamps_ != nullptr) {
      backend_.copy(record.stamps.data(), stamps_, pool_.layout().groups * kStamps * 8, stream);
    }
    backend_.record(*record.event, stream);
  }

  const StepReport& report() {
    while (read_ < steps_) {
      read_ = std::max(read_, steps_ - kDepth);
      Record& record = records_[static_cast<std::size_t>(read_ % kDepth)];
      if (!backend_.is_done(*record.event)) break;
      finish(record);
      ++read_;
    }
    return report_;
  }

 private:
  static constexpr index_t kStamps = 4;
  static constexpr index_t kDepth = 4;  // steps whose figures may be under way

  struct Record {
    std::optional<Event> event;
    index_t step = 0;
    Path path = Path::dense;
    bool is_lossy = false;
    index_t items = 0;
    std::vector<std::int32_t> hits, misses;  // [items, kv_heads]
    std::vector<index_t> miss_bytes;         // [items] of one missing row; 0: nothing offloaded
    std::vector<index_t> lengths;            // [items] tokens; 0: it does not select
    std::vector<std::int32_t> counts;        // [items, kv_heads] of the selection
    std::vector<GuardOutcome> outcomes;      // [items]
    bool has_outcomes = false;
    std::vector<std::uint64_t> stamps;  // [groups, kStamps] ns
  };

  void stamp(index_t group, index_t which, StreamView stream) {
    backend_.stamp(stamps_ + group * kStamps + which, stream);
  }

  void describe(const Batch& batch, Record& record) const {
    bool is_dense = true;
    bool is_resident = true;
    bool is_offloaded = true;
    record.items = static_cast<index_t>(batch.items.size());
    record.is_lossy = false;
    for (std::size_t i = 0; i < batch.items.size(); ++i) {
      const ScheduledItem& item = batch.items[i];
      const KVPoolView& view = pool_.view();
      index_t layers = 0;
      for (index_t g = pool_.resident_groups(item.request); g < view.groups; ++g) {
        layers += view.layers_of(g);
      }
      record.lengths[i] = item.selects ? item.first + item.rows : 0;
      record.miss_bytes[i] = item.selects ? view.run.bytes_of(layers) : 0;
      record.is_lossy = record.is_lossy || (view.run.is_lossy && pool_.reads_returned(item));
      is_dense = is_dense && !item.selects;
      is_resident = is_resident && item.selects && layers == 0;
      is_offloaded = is_offloaded && item.selects && layers > 0;
    }
    record.path = is_dense       ? Path::dense
                  : is_resident  ? Path::selected_resident
                  : is_offloaded ? Path::selected_offloaded
                                 : Path::mixed;
  }

  void finish(const Record& record) {
    report_ = StepReport{.path = record.path, .step = record.step, .is_lossy = record.is_lossy};
    const auto heads = static_cast<std::size_t>(pool_.shape().kv_heads);
    for (std::size_t i = 0; i < static_cast<std::size_t>(record.items); ++i) {
      if (record.miss_bytes[i] == 0) continue;
      for (std::size_t h = i * heads; h < (i + 1) * heads; ++h) {
        report_.hits += record.hits[h];
        report_.misses += record.misses[h];
        report_.bytes += record.misses[h] * record.miss_bytes[i];
      }
    }
    finish_budgets(record);
    if (stamps_ != nullptr) finish_times(record);
  }

  void finish_budgets(const Record& record) {
    const auto heads = static_cast<std::size_t>(pool_.shape().kv_heads);
    index_t rows = 0;
    index_t runs = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(record.items); ++i) {
      if (record.lengths[i] == 0) continue;
      for (std::size_t h = i * heads; h < (i + 1) * heads; ++h, ++runs) {
        rows += record.counts[h] == kAllTokens ? record.lengths[i] : record.counts[h];
      }
      if (!record.has_outcomes) continue;
      report_.guard_raised += record.outcomes[i] == GuardOutcome::raised ? 1 : 0;
      report_.guard_full += record.outcomes[i] == GuardOutcome::full ? 1 : 0;
      report_.guard_limited += record.outcomes[i] == GuardOutcome::limited ? 1 : 0;
    }
    if (runs > 0) report_.mean_budget = static_cast<double>(rows) / static_cast<double>(runs);
  }

  void finish_times(const Record& record) {
    double transfers = 0;
    double waited = 0;
    double start = -1;
    const auto us = [](std::uint64_t from, std::uint64_t to) {
      return to > from ? static_cast<double>(to - from) * 1e-3 : 0.0;
    };
    for (std::size_t g = 0; g < record.stamps.size(); g += kStamps) {
      const std::uint64_t* s = &record.stamps[g];
      if (s[1] == 0) continue;  // nothing of this group was fetched
      const double reached = static_cast<double>(s[2]) * 1e-3;
      if (start < 0) start = reached;
      const double computed = reached - start - waited;
      transfers += us(s[0], s[1]);
      waited += us(s[2], s[3]);
      report_.floor_us = std::max(report_.floor_us, transfers - computed);
    }
    report_.transfer_us = transfers;
    report_.exposed_us = backend_.runs_at_call() ? transfers : waited;
  }

  Backend& backend_;
  const KVPool& pool_;
  std::uint64_t* stamps_ = nullptr;  // device, [groups, kStamps]; null: no host tier
  std::array<Record, kDepth> records_;
  index_t steps_ = 0;
  index_t read_ = 0;
  StepReport report_;
};

}  // namespace detail
}  // namespace spectx
