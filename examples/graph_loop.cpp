// SPDX-License-Identifier: Apache-2.0
// Decode steps in CUDA graphs: captured once a shape, replayed while lengths grow and groups of
// layers move between the tiers. Prompts are run.
#include <cuda_runtime_api.h>

#include <array>
#include <cstdio>
#include <map>

#include "spectx/cuda/backend.hpp"
#include "spectx/cuda/interop.hpp"
#include "toy_model.hpp"
using namespace spectx;

void check(cudaError_t status) {
  if (status != cudaSuccess) throw Error(cudaGetErrorString(status));
}

void step(Backend& backend, toy::Model& model, RetrievalHead& head, PrefetchPipeline& pipeline,
          const Batch& batch, std::int32_t* next, StreamView stream) {
  pipeline.begin_step(batch, head.select(batch, stream), stream);
  model.embed(batch, stream);
  for (index_t layer = 0; layer < model.shape.layers; ++layer) {
    head.observe(layer, batch, model.hidden(batch), stream);
    const auto [q, k, v] = model.qkv(layer, batch, stream);
    const KVView rows = pipeline.append(layer, k, v, stream);
    backend.attend({q, rows, &batch, model.attention_out(batch)}, stream);
    model.finish(layer, batch, stream);
  }
  pipeline.end_step(stream);
  model.next_tokens(batch, next, stream);  // hides the write-through of new rows
}

int main() {
  const auto backend = cu::make_backend();
  const Stream stream = backend->make_stream();
  toy::Model model(*backend, /*max_rows=*/544);
  PlannerConfig config = for_backend(*backend, model.shape, model.head.q_proj.dtype,
                                     {.host_bytes = 64 << 20,
                                      .force_host_tier = true,
                                      .selection = {.budget = 128},
                                      .head = model.head.shape,
                                      .max_requests = 4,
                                      .max_length = 1100});
  config.device_bytes = config.scratch_bytes + (6 << 20);
  MemoryPlanner planner(model.shape, config);
  KVPool pool(*backend, model.shape, planner.pool_plan(), backend->memories());
  RetrievalHead head(*backend, pool, model.head, {}, backend->memories());
  PrefetchPipeline pipeline(*backend, pool, {});
  const Buffer pinned(backend->memories().host, 4 * sizeof(std::int32_t));  // a graph writes it
  auto* const next = reinterpret_cast<std::int32_t*>(pinned.data());
  const auto run = [&](const Batch& batch) {
    step(*backend, model, head, pipeline, batch, next, stream);
  };

  std::array<RequestId, 4> ids{};
  std::array<std::int32_t, 4> tokens{};
  for (int i = 0; i < 4; ++i) {
    const toy::Session prompt = toy::arrivals(4 * i).front();
    ids[i] = pool.open(1100);
    pipeline.apply(planner.place(pool.needs()), stream);
    for (std::size_t at = 0; at < prompt.text.size(); at += 128) {
      const auto left = std::span(prompt.text).subspan(at);
      const BatchItem item{ids[i], left.first(std::min<std::size_t>(128, left.size())), true};
      run(pool.schedule(std::array{item}, stream));
    }
    backend->synchronize(stream);
    tokens[i] = next[0];
  }

  std::map<StepShape, cudaGraphExec_t> graphs;
  for (int n = 0; n < 200; ++n) {
    pipeline.apply(planner.place(pool.needs()), stream);
    std::vector<BatchItem> items;
    for (int i = 0; i < 4; ++i) items.push_back({ids[i], std::span(&tokens[i], 1)});
    const Batch& batch = pool.schedule(items, stream);
    if (head.can_replay(batch) && pipeline.can_replay(batch)) {
      cudaGraphExec_t& graph = graphs[batch.shape()];
      if (graph == nullptr) {
        cudaGraph_t captured = nullptr;
        check(cudaStreamBeginCapture(cu::cuda_stream(stream), cudaStreamCaptureModeThreadLocal));
        run(batch);
        pipeline.join(stream);
        check(cudaStreamEndCapture(cu::cuda_stream(stream), &captured));
        check(cudaGraphInstantiate(&graph, captured, 0));
        check(cudaGraphDestroy(captured));
      }
      head.begin_replay(batch);
      pipeline.begin_replay(batch, batch.shape());
      check(cudaGraphLaunch(graph, cu::cuda_stream(stream)));
      pipeline.end_step(stream);
    } else {
      run(batch);
    }
    backend->synchronize(stream);
    std::copy_n(next, 4, tokens.begin());
    const StepReport& r = pipeline.report();
    std::printf("%3d: %s, %ld rows fetched, %.0f us, waited %.1f us\n", n, path_name(r.path),
                r.misses, r.step_us, r.exposed_us);
  }
  for (const auto& [shape, graph] : graphs) check(cudaGraphExecDestroy(graph));
}
