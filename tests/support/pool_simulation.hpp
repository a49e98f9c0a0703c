// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "simulated_layers.hpp"
#include "simulated_selections.hpp"
#include "spectx/prefetch_pipeline.hpp"

namespace spectx::test {

/// Drives a KVPool and a PrefetchPipeline through random operations beside a plain map of what
/// every request holds.
class PoolSimulation {
 public:
  PoolSimulation(Backend& backend, const ModelShape& shape, const PoolPlan& plan, unsigned seed,
                 PageLender* lender = nullptr)
      : backend_(backend),
        pool_(backend, shape, plan, backend.memories(), lender),
        pipeline_(backend, pool_, {}),
        stream_(backend.make_stream()),
        layers_(backend, shape, plan, stream_),
        selections_(backend, shape, plan),
        random_(seed) {}

  /// Returns the largest error of an output, relative to the largest value.
  double operate() {
    const int what = number(0, 99);
    try {
      if (what < 8) return open();
      if (what < 12) return close();
      if (what < 17) return rewind();
      if (what < 27) return move();
      if (what < 33) return park_or_resume(/*parks=*/what < 30);
      if (what < 38) return warm();
      return step(/*is_ended=*/what < 97);
    } catch (const OutOfMemory&) {
      ++out_of_memory_;
      return 0;
    }
  }

  void close_all() {
    while (!live_.empty()) close();
  }
  const KVPool& pool() const { return pool_; }
  index_t out_of_memory() const { return out_of_memory_; }
  index_t fetched() const { return fetched_; }
  index_t steps() const { return steps_; }

 private:
  struct Live {
    SimulatedLayers::Writes rows;  // the write that made each row
    index_t final_length = 0;
    bool is_parked = false;
  };

  int number(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  std::map<std::int32_t, Live>::iterator any() {
    return std::next(live_.begin(), number(0, static_cast<int>(live_.size()) - 1));
  }
  double open() {
    if (static_cast<index_t>(live_.size()) == pool_.plan().max_requests) return 0;
    Live live;
    live.final_length = number(1, static_cast<int>(pool_.plan().max_length));
    const RequestId id = pool_.open(live.final_length);
    live_[id.value] = live;
    return 0;
  }
  double close() {
    if (live_.empty()) return 0;
    const auto it = any();
    pool_.close({it->first}, stream_);
    live_.erase(it);
    return 0;
  }
  double rewind() {
    if (live_.empty()) return 0;
    const auto it = any();
    if (it->second.is_parked) return 0;
    const int length = static_cast<int>(it->second.rows.size());
    const int to = number(0, 3) == 0 ? number(0, length) : std::max(0, length - number(0, 4));
    pool_.rewind({it->first}, to, stream_);
    it->second.rows.resize(static_cast<std::size_t>(to));
    return 0;
  }
  double move() {
    std::vector<std::int32_t> target;
    for (const RequestNeed& need : pool_.needs()) {
      const bool changes = number(0, 2) == 0;
      const auto unit = static_cast<int>(pool_.layout().unit);
      const auto units = static_cast<int>(pool_.layout().groups) / unit;
      target.push_back(changes ? number(0, units) * unit : need.resident_groups);
    }
    pipeline_.apply({.needs = pool_.needs(), .resident_groups = target}, stream_);
    return 0;
  }
  double park_or_resume(bool parks) {
    if (live_.empty()) return 0;
    const auto it = any();
    if (it->second.is_parked == parks) return 0;
    parks ? pipeline_.park({it->first}, stream_) : pipeline_.resume({it->first}, stream_);
    it->second.is_parked = parks;
    return 0;
  }
  double warm() {
    const Batch* batch = schedule();
    if (batch != nullptr && batch->needs_selection) {
      pipeline_.warm(*batch, select(*batch), stream_);
      backend_.synchronize(stream_);
    }
    return 0;
  }

  /// Random items: prompt chunks, decode rows, drafts. Null: none.
  const Batch* schedule() {
    tokens_.assign(static_cast<std::size_t>(pool_.plan().max_step_rows), 1);
    std::vector<BatchItem> items;
    index_t rows = 0;
    for (const auto& [id, live] : live_) {
      if (live.is_parked || number(0, 3) == 0) continue;
      if (pool_.state({id}) == RequestState::warming) continue;
      const bool is_dense = live.rows.empty() || number(0, 3) == 0;
      const index_t wanted = is_dense ? number(1, 20) : number(0, 3) == 0 ? number(2, 4) : 1;
      const index_t room = std::min(live.final_length - static_cast<index_t>(live.rows.size()),
                                    pool_.plan().max_step_rows - rows);
      const index_t count = std::min(wanted, room);
      if (count <= 0) continue;
      items.push_back({{id}, {tokens_.data(), static_cast<std::size_t>(count)}, is_dense});
      rows += count;
    }
    std::shuffle(items.begin(), items.end(), random_);
    return items.empty() ? nullptr : &pool_.schedule(items, stream_);
  }

  Selection select(const Batch& batch) {
    return selections_.select(
        batch, [this] { return number(1, 7); }, stream_);
  }

  double step(bool is_ended) {
    const Batch* batch = schedule();
    if (batch == nullptr) return 0;
    if (!is_ended && number(0, 1) == 0) return 0;  // scheduled and forgotten
    const Selection selection = select(*batch);
    SimulatedLayers::Writes writes;
    for (index_t r = 0; r < batch->num_rows; ++r) writes.push_back(++write_);
    std::vector<SimulatedLayers::Writes> held;  // of each item, with those of this step
    std::size_t row = 0;
    for (const ScheduledItem& item : batch->items) {
      held.push_back(live_.at(item.request.value).rows);
      for (index_t n = 0; n < item.rows; ++n) held.back().push_back(writes[row++]);
    }
    pipeline_.begin_step(*batch, selection, stream_);
    double worst = 0;
    const auto all = static_cast<int>(pool_.shape().layers);
    for (index_t layer = 0, end = is_ended ? all : number(0, all); layer < end; ++layer) {
      if (pool_.cached_layer(layer) < 0) continue;
      worst =
          std::max(worst, layers_.run(pipeline_, layer, *batch, writes, held, selections_.chosen));
    }
    if (!is_ended) return pipeline_.abandon_step(stream_), worst;
    pipeline_.end_step(stream_);
    backend_.synchronize(stream_);
    for (std::size_t i = 0; i < held.size(); ++i) {
      live_[batch->items[i].request.value].rows = held[i];
    }
    fetched_ += pipeline_.report().misses;
    ++steps_;
    return worst;
  }

  Backend& backend_;
  KVPool pool_;
  PrefetchPipeline pipeline_;
  Stream stream_;
  SimulatedLayers layers_;
  SimulatedSelections selections_;
  std::mt19937 random_;
  std::map<std::int32_t, Live> live_;
  std::vector<std::int32_t> tokens_;
  std::uint32_t write_ = 0;
  index_t out_of_memory_ = 0, fetched_ = 0, steps_ = 0;
};

}  // namespace spectx::test
