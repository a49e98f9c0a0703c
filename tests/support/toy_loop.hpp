// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <vector>

#include "device_reader.hpp"
#include "slow_run.hpp"
#include "spectx/spectx.hpp"
#include "toy_model.hpp"

namespace spectx::test {

inline constexpr index_t kToyGroups = 4;

/// For the toy model: four groups of two layers, pages of 8 tokens, 4 requests of up to 256 tokens,
/// room for all of them in both tiers. `slots` 0: one memory.
inline PoolPlan toy_plan(const SelectionConfig& rule, index_t slots) {
  PoolPlan plan;
  plan.selection = rule;
  plan.max_requests = 4;
  plan.max_length = 256;
  plan.max_step_rows = 64;
  plan.page_rows = 8;
  plan.group_layers = 2;
  plan.slots = slots;
  plan.staging_pages = slots > 0 ? 2 * 32 : 0;
  plan.arena_pages = 4 * (kToyGroups * (32 + slots / 8) + 32);
  plan.host_pages = slots > 0 ? 4 * kToyGroups * 32 : 0;
  plan.head_kv_heads = 2;
  plan.head_k_dim = toy::Model::kDim;
  plan.host_dtype = DType::f32;
  plan.write_batch = 8;
  return plan;
}

/// The four components around the toy model, in one decode loop.
struct ToyLoop {
  ToyLoop(Backend& b, const PoolPlan& plan) : ToyLoop(b, plan, b.memories()) {}
  ToyLoop(Backend& b, const PoolPlan& plan, Memories memories, PageLender* lender = nullptr)
      : backend(b),
        own_stream(b.make_stream()),
        stream(own_stream),
        model(b, plan.max_step_rows),
        pool(b, model.shape, plan, memories, lender),
        head(b, pool, model.head, {}, memories),
        pipeline(b, pool, {}),
        reader(b, b.memories().host),
        next_memory(b.memories().host, plan.max_requests * 4) {
    next.resize(static_cast<std::size_t>(plan.max_requests));
  }
  /// What is still on the stream reads what goes now.
  ~ToyLoop() {
    try {
      backend.synchronize(stream);
    } catch (const Error&) {  // the device is lost
    }
  }

  /// Runs a step and waits for it: `next` and `hidden_bits` are of it.
  void step(std::span<const BatchItem> items) {
    const Batch& batch = pool.schedule(items, stream);
    enqueue(batch);
    read(batch);
  }
  /// Puts a step on the stream.
  void enqueue(const Batch& batch) {
    const Selection& selection = head.select(batch, stream);
    pipeline.begin_step(batch, selection, stream);
    model.embed(batch, stream);
    for (index_t layer = 0; layer < model.shape.layers; ++layer) {
      head.observe(layer, batch, model.hidden(batch), stream);
      const auto [q, k, v] = model.qkv(layer, batch, stream);
      const KVView rows = pipeline.append(layer, k, v, stream);
      backend.attend({q, rows, &batch, model.attention_out(batch)}, stream);
      model.finish(layer, batch, stream);
    }
    pipeline.end_step(stream);
    last = selection;
  }
  /// What the step gave.
  void read(const Batch& batch) {
    auto* const tokens = reinterpret_cast<std::int32_t*>(next_memory.data());
    model.next_tokens(batch, tokens, stream);
    const index_t count = batch.num_rows * model.shape.hidden;
    const auto* const bits =
        reader.ask(reinterpret_cast<const std::uint32_t*>(model.hidden(batch).data), count, stream);
    reader.wait(stream);
    std::copy_n(tokens, batch.items.size(), next.begin());
    hidden_bits.assign(bits, bits + count);
    if (waits) pipeline.wait_ready();
  }
  void step(const BatchItem& item) { step(std::array{item}); }

  /// Prompt rows in chunks of 24 and a rest; of 64 in a slow run.
  void prefill(RequestId id, std::span<const std::int32_t> tokens) {
    const std::size_t chunk = unless_slow<std::size_t>(24, 64);
    for (std::size_t i = 0; i < tokens.size(); i += chunk) {
      step({id, tokens.subspan(i, std::min(chunk, tokens.size() - i)), true});
    }
  }
  void place(RequestId id, std::int32_t resident_groups) {
    std::vector<std::int32_t> target;
    for (const RequestNeed& need : pool.needs()) {
      target.push_back(need.request == id ? resident_groups : need.resident_groups);
    }
    pipeline.apply({pool.needs(), target}, stream);
    if (waits) pipeline.wait_ready();
  }
  /// Ids of the last step's selection of one item: [kv_heads], empty where it reads everything.
  std::vector<std::vector<std::int32_t>> selected(index_t item) {
    const index_t heads = model.shape.kv_heads;
    const std::int32_t* const first = reader.ask(last.counts.data + item * heads, heads, stream);
    reader.wait(stream);
    std::vector<std::vector<std::int32_t>> out;
    for (index_t h = 0; h < heads; ++h) out.emplace_back(std::max(first[h], 0));
    std::vector<const std::int32_t*> ids;
    for (index_t h = 0; h < heads; ++h) {
      ids.push_back(reader.ask(last.ids.data + (item * heads + h) * last.max_budget,
                               static_cast<index_t>(out[static_cast<std::size_t>(h)].size()),
                               stream));
    }
    reader.wait(stream);
    for (std::size_t h = 0; h < out.size(); ++h) std::copy_n(ids[h], out[h].size(), out[h].begin());
    return out;
  }

  Backend& backend;
  Stream own_stream;
  StreamView stream;  // of the steps; another one may take over
  toy::Model model;
  KVPool pool;
  RetrievalHead head;
  PrefetchPipeline pipeline;
  DeviceReader reader;
  Buffer next_memory;                      // pinned, where that is something
  bool waits = true;                       // for the transfers of every call
  std::vector<std::int32_t> next;          // [items] the likeliest next tokens
  std::vector<std::uint32_t> hidden_bits;  // [rows, hidden] after the last layer
  Selection last;
};

/// What a request's steps gave.
struct ToyTrace {
  std::vector<std::uint32_t> bits;  // hidden states of all its rows
  std::vector<std::int32_t> tokens;
  std::vector<std::vector<std::int32_t>> ids;  // [steps * kv_heads] selected

  friend bool operator==(const ToyTrace&, const ToyTrace&) = default;
};

inline std::vector<std::int32_t> toy_text(int length, int seed = 3) {
  std::vector<std::int32_t> text;
  for (int i = 0; i < length; ++i) text.push_back((i * i * seed + 11 * i + seed) % 256);
  return text;
}

/// Decodes one request; every 8th step verifies two drafts and takes one of them back.
struct ToyDecode {
  RequestId id;
  std::int32_t token = 1;
  bool is_dense = false;
  bool has_drafts = true;
  std::vector<BatchItem> neighbours{};  // rows before its own in every batch

  /// `before(n)` is called before step n.
  template <class Before>
  ToyTrace run(ToyLoop& loop, int steps, Before&& before) {
    ToyTrace trace;
    for (int n = 0; n < steps; ++n) {
      before(n);
      const bool is_draft = has_drafts && n % 8 == 7;
      const std::array<std::int32_t, 3> tokens = {token, (n * 5 + 1) % 256, (n * 3 + 2) % 256};
      std::vector<BatchItem> items = neighbours;
      items.push_back({id, std::span(tokens).first(is_draft ? 3 : 1), is_dense});
      const index_t length = loop.pool.length(id);
      loop.step(items);
      const auto rows = static_cast<std::ptrdiff_t>(items.back().tokens.size());
      trace.bits.insert(trace.bits.end(), loop.hidden_bits.end() - rows * loop.model.shape.hidden,
                        loop.hidden_bits.end());
      token = loop.next[items.size() - 1];
      trace.tokens.push_back(token);
      for (auto& ids : loop.selected(static_cast<index_t>(items.size()) - 1)) {
        trace.ids.push_back(std::move(ids));
      }
      if (is_draft) loop.pool.rewind(id, length + 2, loop.stream);
      for (const BatchItem& item : neighbours) {
        loop.pool.rewind(item.request, loop.pool.length(item.request) - 1, loop.stream);
      }
    }
    return trace;
  }
  ToyTrace run(ToyLoop& loop, int steps) {
    return run(loop, steps, [](int) {});
  }
};

}  // namespace spectx::test
