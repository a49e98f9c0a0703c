// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>

#include "toy_loop.hpp"

namespace spectx::test {

/// Decodes with the toy model, each step by launching a graph of its shape where it can.
struct ReplayLoop : ToyLoop {
  using Launch = std::function<void()>;
  /// Captures what the function puts on the loop's stream.
  using Capture = std::function<Launch(ReplayLoop&, const std::function<void()>&)>;

  ReplayLoop(Backend& b, const PoolPlan& plan, Capture by) : ToyLoop(b, plan), capture(by) {}

  void step(std::span<const BatchItem> items) {
    const Batch& batch = pool.schedule(items, stream);
    launch(batch);
    read(batch);
  }
  void launch(const Batch& batch) {
    if (!head.can_replay(batch) || !pipeline.can_replay(batch)) return enqueue(batch);
    const StepShape shape = batch.shape();
    if (!graphs.contains(shape)) {
      graphs[shape] = capture(*this, [&] {
        enqueue(batch);
        pipeline.join(stream);
      });
    }
    head.begin_replay(batch);
    pipeline.begin_replay(batch, shape);
    graphs[shape]();
    pipeline.end_step(stream);
    ++replays;
  }

  Capture capture;
  std::map<StepShape, Launch> graphs;
  int replays = 0;
};

/// What the device and the host know after a step.
struct StepResult {
  template <class Loop>
  StepResult(Loop& loop, std::size_t items) : bits(loop.hidden_bits) {
    next.assign(loop.next.begin(), loop.next.begin() + static_cast<std::ptrdiff_t>(items));
    for (std::size_t i = 0; i < items; ++i) {
      for (auto& head_ids : loop.selected(static_cast<index_t>(i))) ids.push_back(head_ids);
    }
    const KVPoolView& view = loop.pool.view();
    const index_t requests = loop.pool.plan().max_requests;
    const auto read = [&](const std::int32_t* from, index_t count) {
      std::vector<std::int32_t> values(static_cast<std::size_t>(count));
      loop.backend.copy(values.data(), from, count * 4, loop.stream);
      loop.backend.synchronize(loop.stream);
      tables.push_back(std::move(values));
    };
    read(view.token_of_slot, requests * view.kv_heads * view.slots);
    read(view.last_used, requests * view.kv_heads * view.slots);
    read(view.slot_of_token, requests * view.kv_heads * view.max_length);
    read(view.durable, requests);
    for (const RequestNeed& n : loop.pool.needs()) lengths.push_back(n.length);
    const StepReport& r = loop.pipeline.report();
    figures = {static_cast<index_t>(r.path),
               r.step,
               r.hits,
               r.misses,
               r.bytes,
               r.guard_raised,
               r.guard_full,
               r.guard_limited};
    mean_budget = r.mean_budget;
    first_group = r.groups.empty() ? loop.pool.layout().groups : r.groups.front().group;
  }
  friend bool operator==(const StepResult&, const StepResult&) = default;

  std::vector<std::uint32_t> bits;
  std::vector<std::int32_t> next;
  std::vector<std::vector<std::int32_t>> ids, tables;
  std::vector<index_t> lengths, figures;
  index_t first_group;
  double mean_budget;
};

/// Which part of two results differs; empty: none.
inline std::string difference(const StepResult& a, const StepResult& b) {
  if (a.lengths != b.lengths) return "lengths";
  if (a.ids != b.ids) return "selected ids";
  if (a.bits != b.bits) return "hidden states";
  if (a.next != b.next) return "next tokens";
  if (a.tables != b.tables) return "slot maps";
  if (a.figures != b.figures) return "report";
  if (a.mean_budget != b.mean_budget) return "mean budget";
  return a == b ? "" : "first group";
}

inline SelectionConfig replay_rule(bool has_guard) {
  SelectionConfig rule{.budget = 48, .sinks = 2, .recent_window = 16};
  if (has_guard) rule.max_budget = 64;
  if (has_guard) rule.min_coverage = 0.6F;
  return rule;
}

/// Four requests of different lengths and placements decode, at every 8th step by drafts of which
/// one is taken back. Groups move; one request leaves and comes back as another.
template <class Loop>
class ReplayScene {
 public:
  template <class... More>
  explicit ReplayScene(Backend& backend, More... more)
      : ReplayScene(replay_rule(false), backend, more...) {}
  template <class... More>
  ReplayScene(const SelectionConfig& rule, Backend& backend, More... more)
      : loop(backend, toy_plan(rule, 64), more...) {
    for (const int length : {12, 40, 30, 20}) open(length);
  }

  StepResult step(int n) {
    if (n == 5) loop.place(ids_[0], 1);  // no graph with a selection before
    if (n == 40) loop.place(ids_[1], 3);
    if (n == 60) loop.place(ids_[0], 4);
    if (n == 70) loop.place(ids_[2], 0);
    if (n == 110) loop.place(ids_[2], 2);
    if (n == 130) {
      loop.pool.close(ids_[3], loop.stream);
      ids_.pop_back();
      tokens_.pop_back();
      open(40);
    }
    const bool is_draft = n % 8 == 7 && n > 50;  // all of them select by then
    const std::size_t rows = is_draft ? 3 : 1;
    std::vector<std::array<std::int32_t, 3>> tokens;
    std::vector<BatchItem> items;
    for (const std::int32_t token : tokens_) tokens.push_back({token, n % 256, (3 * n + 1) % 256});
    for (std::size_t i = 0; i < ids_.size(); ++i) {
      items.push_back({ids_[i], std::span(tokens[i]).first(rows)});
    }
    loop.step(items);
    const StepResult result(loop, items.size());
    for (std::size_t i = 0; i < ids_.size(); ++i) {
      tokens_[i] = result.next[i];
      if (is_draft) loop.pool.rewind(ids_[i], loop.pool.length(ids_[i]) - 2, loop.stream);
    }
    return result;
  }

  Loop loop;

 private:
  void open(int length) {
    ids_.push_back(loop.pool.open(256));
    loop.ToyLoop::prefill(ids_.back(), toy_text(length, length));
    tokens_.push_back(length);
  }

  std::vector<RequestId> ids_;
  std::vector<std::int32_t> tokens_;
};

}  // namespace spectx::test
