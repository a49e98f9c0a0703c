// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "spectx/detail/step_times.hpp"
#include "spectx/detail/step_trace.hpp"
#include "spectx/kv_pool.hpp"

namespace spectx::detail {

/// Collects a step's device counts and time stamps and turns them into a StepReport once they have
/// arrived on the host. They are one block of device memory, which every step writes and end_step
/// copies to the next of a ring of records; that copy is never captured, so that a replayed step
/// has its own record like any other.
class StepMeter {
 public:
  StepMeter(Backend& backend, const KVPool& pool)
      : backend_(backend),
        pool_(pool),
        host_(pool.memories().host, pool.layout().host_figure_bytes()),
        trace_(backend.trace()) {
    index_t offset = 0;
    for (Record& record : records_) {
      record.event.emplace(backend.make_event());
      record.figures = figures_at(host_.data() + offset);
      record.items.resize(static_cast<std::size_t>(pool.plan().max_requests));
      offset += pool.layout().figure_bytes();
    }
    groups_.reserve(static_cast<std::size_t>(pool.layout().groups));
  }

  /// Where the step writes its counts: PoolLayout::figure_bytes() of device memory.
  void point(std::byte* device, StepLists& lists) {
    device_ = figures_at(device);
    lists.miss_counts = device_.misses;
    lists.hit_counts = device_.hits;
  }

  /// Zeros what no step writes and every step copies. Waits.
  void clear(StreamView stream) {
    backend_.fill(device_.begin, 0, pool_.layout().figure_bytes(), stream);
    backend_.synchronize(stream);
  }

  /// The host is about to put a step on a stream, or to launch a captured one.
  void note_launch() { launch_ns_ = StepTrace::now_ns(); }
  /// Before anything of a step.
  void begin_step(StreamView compute) { stamp(StepStamps::kBegin, compute); }
  /// Once the transfers may start.
  void begin_transfers(StreamView compute) { stamp(StepStamps::kTransfersBegin, compute); }
  void begin_transfer(index_t group, StreamView s) {
    stamp(StepStamps::of_group(group, StepStamps::kTransfer), s);
  }
  void end_transfer(index_t group, StreamView s) {
    stamp(StepStamps::of_group(group, StepStamps::kTransferEnd), s);
  }
  /// Of the first group's lead layers, whose transfer begins with the group's.
  void end_lead(StreamView s) { stamp(StepStamps::kLeadEnd, s); }
  void begin_lead_wait(StreamView s) { stamp(StepStamps::kLeadWait, s); }
  void end_lead_wait(StreamView s) { stamp(StepStamps::kLeadWaitEnd, s); }
  void begin_wait(index_t group, StreamView s) {
    stamp(StepStamps::of_group(group, StepStamps::kWait), s);
  }
  void end_wait(index_t group, StreamView s) {
    stamp(StepStamps::of_group(group, StepStamps::kWaitEnd), s);
  }
  /// After the last of a step's work on the compute stream.
  void end_compute(StreamView compute) { stamp(StepStamps::kEnd, compute); }
  /// Around the write-through, which nobody waits for: of interest to a trace alone.
  void begin_write(StreamView s) { stamp_for_trace(StepStamps::kWrite, s); }
  void end_write(StreamView s) { stamp_for_trace(StepStamps::kWriteEnd, s); }

  /// Takes what the selector says of its selection, after `stream`.
  void collect(const Batch& batch, const Selection& selection, StreamView stream) {
    if (!batch.needs_selection) return;
    const auto items = static_cast<index_t>(batch.items.size());
    backend_.copy(device_.counts, selection.counts.data, items * pool_.shape().kv_heads * 4,
                  stream);
    if (selection.outcomes.size > 0) {
      backend_.copy(device_.outcomes, selection.outcomes.data, items * 4, stream);
    } else {
      static_assert(static_cast<int>(GuardOutcome::kept) == 0);
      backend_.fill(device_.outcomes, 0, items * 4, stream);
    }
  }

  /// Sends the step's figures to the host, after `stream`, which follows the step.
  void end_step(const Batch& batch, StreamView stream) {
    Record& record = records_[static_cast<std::size_t>(steps_ % kDepth)];
    record.step = steps_++;
    record.launch_ns = launch_ns_;
    describe(batch, record);
    backend_.copy(host_.data() + (record.step % kDepth) * pool_.layout().figure_bytes(),
                  device_.begin, pool_.layout().figure_bytes(), stream);
    backend_.record(*record.event, stream);
  }

  StepTrace& trace() noexcept { return trace_; }

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
  static constexpr index_t kDepth = PoolLayout::kFigureRecords;

  struct Figures {
    std::byte* begin = nullptr;
    std::int32_t *misses = nullptr, *hits = nullptr;  // [items, kv_heads]; null: no host tier
    std::uint64_t* stamps = nullptr;   // ns: of the step, then four a group; null: no host tier
    std::int32_t* counts = nullptr;    // [items, kv_heads] of the selection
    GuardOutcome* outcomes = nullptr;  // [items]
  };
  struct Item {
    index_t miss_bytes = 0;  // of one missing row; 0: nothing offloaded
    index_t length = 0;      // tokens; 0: it does not select
  };
  struct Record {
    std::optional<Event> event;
    index_t step = 0;
    Path path = Path::dense;
    bool is_lossy = false;
    index_t num_items = 0;
    index_t first_group = 0;  // that is offloaded for some item that selects
    std::vector<Item> items;
    std::int64_t launch_ns = 0;
    Figures figures;  // host
  };

  Figures figures_at(std::byte* memory) const {
    const PoolLayout& layout = pool_.layout();
    Carver carver(memory);
    Figures f{.begin = memory};
    f.misses = carver.take<std::int32_t>(layout.head_count_bytes);
    f.hits = carver.take<std::int32_t>(layout.head_count_bytes);
    f.stamps = carver.take<std::uint64_t>(layout.stamp_bytes);
    f.counts = carver.take<std::int32_t>(layout.selection_count_bytes);
    f.outcomes = carver.take<GuardOutcome>(layout.request_array_bytes);
    return f;
  }
  void stamp(index_t place, StreamView stream) { backend_.stamp(device_.stamps + place, stream); }
  void stamp_for_trace(index_t place, StreamView stream) {
    if (backend_.trace().device != nullptr) stamp(place, stream);
  }

  void describe(const Batch& batch, Record& record) const {
    const KVPoolView& view = pool_.view();
    bool is_dense = true;
    bool is_resident = true;
    bool is_offloaded = true;
    record.num_items = static_cast<index_t>(batch.items.size());
    record.is_lossy = false;
    record.first_group = view.groups;
    for (std::size_t i = 0; i < batch.items.size(); ++i) {
      const ScheduledItem& item = batch.items[i];
      const index_t resident = pool_.resident_groups(item.request);
      index_t layers = 0;
      for (index_t g = resident; g < view.groups; ++g) layers += view.layers_of(g);
      record.items[i] = {};
      if (item.selects) record.items[i] = {view.run.bytes_of(layers), item.first + item.rows};
      if (item.selects) record.first_group = std::min(record.first_group, resident);
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
    const index_t heads = pool_.shape().kv_heads;
    const Figures& figures = record.figures;
    index_t rows = 0;
    index_t runs = 0;
    for (index_t i = 0; i < record.num_items; ++i) {
      const Item& item = record.items[static_cast<std::size_t>(i)];
      if (item.length == 0) continue;
      for (index_t h = i * heads; h < (i + 1) * heads; ++h, ++runs) {
        rows += figures.counts[h] == kAllTokens ? item.length : figures.counts[h];
        if (item.miss_bytes == 0) continue;
        report_.hits += figures.hits[h];
        report_.misses += figures.misses[h];
        report_.bytes += figures.misses[h] * item.miss_bytes;
      }
      report_.guard_raised += figures.outcomes[i] == GuardOutcome::raised ? 1 : 0;
      report_.guard_full += figures.outcomes[i] == GuardOutcome::full ? 1 : 0;
      report_.guard_limited += figures.outcomes[i] == GuardOutcome::limited ? 1 : 0;
    }
    if (runs > 0) report_.mean_budget = static_cast<double>(rows) / static_cast<double>(runs);
    if (device_.stamps != nullptr) finish_times(record);
  }

  void finish_times(const Record& record) {
    const index_t groups = pool_.layout().groups;
    const bool has_lead = pool_.layout().lead_layers > 0;
    groups_.clear();
    StepTimes{record.figures.stamps, record.first_group, groups, has_lead, backend_.runs_at_call()}
        .write(report_, groups_);
    report_.groups = groups_;
    trace_.write(record.figures.stamps, record.first_group, groups, has_lead, record.launch_ns);
  }

  Backend& backend_;
  const KVPool& pool_;
  Figures device_;
  Buffer host_;  // [kDepth] figures
  std::array<Record, kDepth> records_;
  std::int64_t launch_ns_ = 0;
  index_t steps_ = 0;
  index_t read_ = 0;
  StepReport report_;
  std::vector<GroupTimes> groups_;
  StepTrace trace_;
};

}  // namespace spectx::detail
