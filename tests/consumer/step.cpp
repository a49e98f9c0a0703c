// SPDX-License-Identifier: Apache-2.0
// One request of somebody else's engine: a prompt, then one decode step that reads 24 of its 49
// rows, from the host tier. Queries are zero, so that attention gives the mean of the rows it read.
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "spectx/cpu/backend.hpp"
#include "spectx/spectx.hpp"

namespace {

constexpr spectx::index_t kPrompt = 48;  // tokens

spectx::ModelShape shape() {
  return {.layers = 2,
          .query_heads = 2,
          .kv_heads = 1,
          .k_dim = 4,
          .v_dim = 4,
          .hidden = 8,
          .vocabulary = 16,
          .dtype = spectx::DType::f32,
          .rope = {},
          .attention = {}};
}

/// Runs one step in which row p of layer l has the value p + 100 l. Returns the first output of the
/// last layer's last row.
float run(spectx::Backend& backend, spectx::PrefetchPipeline& pipeline, const spectx::Batch& batch,
          const spectx::Selection& selection, spectx::StreamView stream) {
  const auto n = static_cast<std::size_t>(batch.num_rows);
  const auto first = static_cast<float>(batch.items[0].first);
  std::vector<float> q(n * 8), k(n * 4, 0.5F), v(n * 4), out(n * 8);
  const auto view = [&](std::vector<float>& data, spectx::index_t heads) {
    return spectx::split_heads(
        spectx::matrix_view(data.data(), spectx::DType::f32, batch.num_rows, heads * 4), heads, 4);
  };
  pipeline.begin_step(batch, selection, stream);
  for (spectx::index_t layer = 0; layer < shape().layers; ++layer) {
    for (std::size_t i = 0; i < v.size(); ++i) {
      v[i] = first + static_cast<float>(i / 4) + 100 * static_cast<float>(layer);
    }
    const spectx::KVView rows = pipeline.append(layer, view(k, 1), view(v, 1), stream);
    backend.attend({.q = view(q, 2), .kv = rows, .batch = &batch, .out = view(out, 2)}, stream);
  }
  pipeline.end_step(stream);
  backend.synchronize(stream);
  return out[(n - 1) * 8];
}

bool is_near(float value, double expected) {
  const bool is_right = std::abs(static_cast<double>(value) - expected) < 1e-4 * expected;
  if (!is_right) std::printf("got %.6f, expected %.6f\n", static_cast<double>(value), expected);
  return is_right;
}

}  // namespace

int main() {
#ifdef PACKAGE_VERSION
  const spectx::Version version = spectx::kVersion;
  const std::string wanted = PACKAGE_VERSION;
  if (std::to_string(version.major) + "." + std::to_string(version.minor) + "." +
          std::to_string(version.patch) !=
      wanted) {
    std::printf("the headers are not of version %s\n", wanted.c_str());
    return 1;
  }
#endif
  const auto backend = spectx::make_cpu_backend({.threads = 2, .two_memories = true});
  const spectx::Stream stream = backend->make_stream();
  spectx::PlannerConfig config;
  config.device_bytes = 4 << 20;
  config.host_bytes = 16 << 20;
  config.force_host_tier = true;
  config.selection = {.budget = 24, .sinks = 1, .recent_window = 12};
  config.max_requests = 1;
  config.max_length = 64;
  config.max_step_rows = kPrompt;
  config.page_rows = 16;
  config.write_batch = 4;
  spectx::MemoryPlanner planner(shape(),
                                spectx::for_backend(*backend, shape(), shape().dtype, config));
  spectx::KVPool pool(*backend, shape(), planner.pool_plan(), backend->memories());
  spectx::PrefetchPipeline pipeline(*backend, pool, {});

  const spectx::RequestId request = pool.open(kPrompt + 1);
  const std::int32_t nothing_resident = 0;
  pipeline.apply({.needs = pool.needs(), .resident_groups = {&nothing_resident, 1}}, stream);
  const std::vector<std::int32_t> tokens(kPrompt, 1);
  const spectx::BatchItem prompt{request, tokens, /*is_dense=*/true};
  bool is_right = is_near(run(*backend, pipeline, pool.schedule({&prompt, 1}, stream), {}, stream),
                          100 + (kPrompt - 1) / 2.0);

  // Tokens 0, 3, 6 .. 33 and the last twelve, the new row among them.
  std::vector<std::int32_t> ids(24);
  for (int i = 0; i < 12; ++i) ids[static_cast<std::size_t>(i)] = 3 * i;
  std::iota(ids.begin() + 12, ids.end(), static_cast<int>(kPrompt) - 11);
  std::int32_t count = 24;
  const spectx::Selection selection{
      .ids = {ids.data(), 24}, .counts = {&count, 1}, .coverage = {}, .max_budget = 24};
  const spectx::BatchItem next{request, {tokens.data(), 1}};
  const float out = run(*backend, pipeline, pool.schedule({&next, 1}, stream), selection, stream);
  is_right = is_near(out, 100 + std::accumulate(ids.begin(), ids.end(), 0) / 24.0) && is_right;

  const spectx::StepReport report = pipeline.report();
  std::printf("%s, %lld rows fetched\n", spectx::path_name(report.path),
              static_cast<long long>(report.misses));
  return is_right && report.misses == 23 ? 0 : 1;
}
