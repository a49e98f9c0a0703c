// SPDX-License-Identifier: Apache-2.0
// spectx in somebody's own decode loop: requests arrive, prefill in chunks, decode together, leave.
#include <cstdio>
#include <deque>

#include "spectx/cpu/backend.hpp"
#include "toy_model.hpp"
using namespace spectx;

/// One step over any mix of prompt chunks and decode rows.
void step(Backend& backend, toy::Model& model, RetrievalHead& head, PrefetchPipeline& pipeline,
          const Batch& batch, std::int32_t* next, StreamView stream) {
  pipeline.begin_step(batch, head.select(batch, stream), stream);  // which rows, for all layers
  model.embed(batch, stream);
  for (index_t layer = 0; layer < model.shape.layers; ++layer) {
    head.observe(layer, batch, model.hidden(batch), stream);  // features for the next step
    const auto [q, k, v] = model.qkv(layer, batch, stream);
    const KVView rows = pipeline.append(layer, k, v, stream);  // waits, on the stream, for rows
    const TensorView out = model.attention_out(batch);
    backend.attend({.q = q, .kv = rows, .batch = &batch, .out = out}, stream);
    model.finish(layer, batch, stream);
  }
  pipeline.end_step(stream);
  model.next_tokens(batch, next, stream);
}

int main() {
  const auto backend = make_cpu_backend({.two_memories = true});
  const Stream stream = backend->make_stream();
  toy::Model model(*backend, /*max_rows=*/544);
  MemoryPlanner planner(model.shape, {.device_bytes = 5 << 20,
                                      .host_bytes = 64 << 20,
                                      .selection = {.budget = 256},
                                      .head = model.head.shape,
                                      .max_requests = 8,
                                      .max_length = 1056});
  KVPool pool(*backend, model.shape, planner.pool_plan(), backend->memories());
  RetrievalHead head(*backend, pool, model.head, {}, backend->memories());
  PrefetchPipeline pipeline(*backend, pool, {});

  std::deque<toy::Session> waiting;
  std::vector<toy::Session> running;
  std::vector<BatchItem> items;
  std::vector<std::int32_t> next(8);
  for (int n = 0; n < 32 || !running.empty() || !waiting.empty(); ++n) {
    for (toy::Session& s : toy::arrivals(n)) waiting.push_back(std::move(s));
    while (!waiting.empty()) {
      const Admission answer = planner.admit(pool.needs(), waiting.front().end);
      if (answer == Admission::later) break;
      if (answer == Admission::now) {
        running.push_back(std::move(waiting.front()));  // joins
        running.back().id = pool.open(running.back().end);
      }
      waiting.pop_front();  // never: refused
    }
    pipeline.apply(planner.place(pool.needs()), stream);  // groups change tier, in the background

    items.clear();
    for (const toy::Session& s : running)
      if (pool.state(s.id) != RequestState::warming)
        items.push_back({s.id, s.next(512 / running.size()), s.is_prompt()});
    step(*backend, model, head, pipeline, pool.schedule(items, stream), next.data(), stream);
    backend->synchronize(stream);

    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto is_it = [&](const toy::Session& s) { return s.id == items[i].request; };
      toy::Session& s = *std::find_if(running.begin(), running.end(), is_it);
      s.cached += items[i].tokens.size();
      if (!items[i].is_dense) s.text.push_back(next[i]);
      if (items[i].is_dense && !s.is_prompt()) {  // the prompt's last token decodes once it is warm
        const BatchItem first{s.id, s.next(1)};
        const Batch& batch = pool.schedule({&first, 1}, stream);
        pipeline.warm(batch, head.select(batch, stream), stream);
      }
    }
    const StepReport report = pipeline.report();
    std::printf("step %3d: %zu requests, %s, %lld rows fetched\n", n, running.size(),
                path_name(report.path), static_cast<long long>(report.misses));
    std::erase_if(running, [&](const toy::Session& s) {  // leaves
      return s.is_done() && (pool.close(s.id, stream), true);
    });
  }
}
