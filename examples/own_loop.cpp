// SPDX-License-Identifier: Apache-2.0
// spectx in somebody's own decode loop: requests arrive, prefill in chunks, decode together, leave.
#include <array>
#include <cstdio>
#include <deque>

#include "spectx/cpu/backend.hpp"
#include "toy_model.hpp"
using namespace spectx;

void step(Backend& backend, toy::Model& model, RetrievalHead& head, PrefetchPipeline& pipeline,
          const Batch& batch, std::int32_t* next, StreamView stream) {
  pipeline.begin_step(batch, head.select(batch, stream), stream);  // which rows, for all layers
  model.embed(batch, stream);
  for (index_t layer = 0; layer < model.shape.layers; ++layer) {
    head.observe(layer, batch, model.hidden(batch), stream);  // features for the next step
    const auto [q, k, v] = model.qkv(layer, batch, stream);
    const KVView rows = pipeline.append(layer, k, v, stream);  // waits, on the stream, for rows
    backend.attend({q, rows, &batch, model.attention_out(batch)}, stream);
    model.finish(layer, batch, stream);
  }
  pipeline.end_step(stream);
  model.next_tokens(batch, next, stream);
}

int main() {
  const auto backend = make_cpu_backend({.two_memories = true});
  const Stream stream = backend->make_stream();
  toy::Model model(*backend, /*max_rows=*/544);
  MemoryPlanner planner(model.shape, for_backend(*backend, model.shape, model.head.q_proj.dtype,
                                                 {.device_bytes = 6 << 20,
                                                  .host_bytes = 64 << 20,
                                                  .selection = {.budget = 128},
                                                  .head = model.head.shape,
                                                  .max_requests = 8,
                                                  .max_length = 1100}));
  KVPool pool(*backend, model.shape, planner.pool_plan(), backend->memories());
  RetrievalHead head(*backend, pool, model.head, {}, backend->memories());
  PrefetchPipeline pipeline(*backend, pool, {});
  std::deque<toy::Session> waiting, running;
  std::vector<BatchItem> items;
  std::array<std::int32_t, 8> next;
  for (int n = 0; n < 32 || !running.empty() || !waiting.empty(); ++n) {
    for (toy::Session& s : toy::arrivals(n)) waiting.push_back(std::move(s));
    while (!waiting.empty()) {
      const Admission answer = planner.admit(pool.needs(), waiting.front().end);
      if (answer == Admission::later) break;
      if (answer == Admission::now) running.push_back(std::move(waiting.front()));  // joins
      if (answer == Admission::now) running.back().id = pool.open(running.back().end);
      waiting.pop_front();  // never: refused
    }
    pipeline.apply(planner.place(pool.needs()), stream);  // groups change tier, in the background

    items.clear();
    bool has_prompt = false;  // one prompt chunk a step: its earlier rows are staged on the device
    for (const toy::Session& s : running) {
      if (pool.state(s.id) == RequestState::warming || (s.is_prompt() && has_prompt)) continue;
      has_prompt = has_prompt || s.is_prompt();
      items.push_back({s.id, s.next(512), s.is_prompt()});
    }
    step(*backend, model, head, pipeline, pool.schedule(items, stream), next.data(), stream);
    backend->synchronize(stream);

    for (std::size_t i = 0; i < items.size(); ++i) {
      toy::Session& s = *std::ranges::find(running, items[i].request, &toy::Session::id);
      s.cached += items[i].tokens.size();
      if (!items[i].is_dense) s.text.push_back(next[i]);
      if (items[i].is_dense && !s.is_prompt()) {  // the prompt's last token decodes once it is warm
        const Batch& batch = pool.schedule(std::array{BatchItem{s.id, s.next(1)}}, stream);
        pipeline.warm(batch, head.select(batch, stream), stream);
      }
    }
    std::printf("%3d: %zu requests, %ld KiB on the device, %ld on the host, %s, %ld rows fetched\n",
                n, running.size(), pool.stats().device_used >> 10, pool.stats().host_used >> 10,
                path_name(pipeline.report().path), pipeline.report().misses);
    std::erase_if(running, [&](const toy::Session& s) {  // leaves
      return s.is_done() && (pool.close(s.id, stream), true);
    });
  }
}
