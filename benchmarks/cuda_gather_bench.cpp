// SPDX-License-Identifier: Apache-2.0
// Rows between a GPU and a host tier of many GiB of pinned memory, and a pinned copy to hold them
// against. Rates count the bytes that cross the link.
#include <cstring>

#include "spectx/bytes_moved.hpp"
#include "support/host_tier.hpp"

namespace {

using namespace spectx;
using namespace spectx::bench;

/// The first miss of group 0 arrives: ones in both types, times a scale of 2.
bool arrives(const tier::Pool& pool, const tier::Misses& misses,
             const std::function<void(int)>& gather) {
  Gpu& gpu = Gpu::get();
  const bool is_lossy = pool.view().run.is_lossy;
  std::byte* const run = pool.run_of(0, 0, misses.first_token);
  const std::vector<std::uint16_t> expected(2 * tier::kDim, is_lossy ? 0x4000 : 0x3f80);
  std::vector<std::uint16_t> row(2 * tier::kDim);
  if (is_lossy) {
    const float scales[2] = {2, 2};
    std::memcpy(run, scales, sizeof scales);
    std::memset(run + pool.view().run.first_row, 0x38, 2 * tier::kDim);
  } else {
    std::memcpy(run, expected.data(), 4 * tier::kDim);
  }
  gather(0);
  gpu.backend->copy(row.data(), pool.slot_row(0, 0, misses.first_slot), 4 * tier::kDim, gpu.stream);
  gpu.backend->synchronize(gpu.stream);
  return row == expected;
}

/// The misses of one step.
void gather_rows(benchmark::State& state, DType host_dtype) {
  const tier::Gather gather(host_dtype, state.range(0));
  const std::function<void(int)> step = [&](int) {
    gather.run(static_cast<int>(state.range(1)), Gpu::get().stream);
  };
  if (!arrives(gather.pool(), gather.misses(), step)) return state.SkipWithError("a row is wrong");
  bench::time_on_device(state, gather.bytes(), step);
}

/// A group of a request leaves, or comes back.
void move_rows(benchmark::State& state, DType host_dtype) {
  Gpu& gpu = Gpu::get();
  const tier::Pool pool(host_dtype, 8);
  const KVPoolView view = pool.view();
  const RowPlace host{RowPlace::Kind::host, view.host_pages_of(0, 0)};
  const RowPlace tokens{RowPlace::Kind::tokens, view.pages_of(0, 0)};
  const bool leaves = state.range(0) != 0;
  const MoveRowsArgs move{.pool = view,
                          .request = {0},
                          .from = leaves ? tokens : host,
                          .to = leaves ? host : tokens,
                          .last = tier::kSlots};
  bench::time_on_device(state, tier::kSlots * tier::kHeads * view.run.bytes_of(view.group_layers),
                        [&](int) { gpu.backend->move_rows(move, gpu.stream); });
}

void pinned_copy(benchmark::State& state) {
  Gpu& gpu = Gpu::get();
  const index_t bytes = index_t{256} << 20;
  const Buffer device(gpu.backend->memories().device, bytes);
  std::byte* const host = tier::Memory::of(1).chunks[0].data();
  const bool leaves = state.range(0) != 0;
  bench::time_on_device(state, bytes, [&](int) {
    gpu.backend->copy(leaves ? host : device.data(), leaves ? device.data() : host, bytes,
                      gpu.stream);
  });
}

void with_tiers(benchmark::internal::Benchmark* b) {
  b->ArgNames({"GiB", "blocks"});
  for (const index_t gib : {8, 40}) {
    for (const index_t blocks : {4, 8, 16, 32}) b->Args({gib, blocks});
  }
  b->UseManualTime();
}

BENCHMARK(pinned_copy)
    ->Name("pinned_copy/cuda")
    ->ArgName("leaves")
    ->Arg(0)
    ->Arg(1)
    ->UseManualTime();
BENCHMARK_CAPTURE(move_rows, bf16, DType::bf16)
    ->Name("move_rows/cuda/bf16")
    ->ArgName("leaves")
    ->Arg(0)
    ->Arg(1)
    ->UseManualTime();
BENCHMARK_CAPTURE(move_rows, f8_e4m3, DType::f8_e4m3)
    ->Name("move_rows/cuda/f8_e4m3")
    ->ArgName("leaves")
    ->Arg(0)
    ->Arg(1)
    ->UseManualTime();
BENCHMARK_CAPTURE(gather_rows, bf16, DType::bf16)->Name("gather_rows/cuda/bf16")->Apply(with_tiers);
BENCHMARK_CAPTURE(gather_rows, f8_e4m3, DType::f8_e4m3)
    ->Name("gather_rows/cuda/f8_e4m3")
    ->Apply(with_tiers);

}  // namespace

BENCHMARK_MAIN();
