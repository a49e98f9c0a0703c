// SPDX-License-Identifier: Apache-2.0
// Rows between a GPU and a host tier of many GiB of pinned memory, and a pinned copy to hold them
// against. Rates count the bytes that cross the link.
#include <cstring>

#include "spectx/bytes_moved.hpp"
#include "support/batches.hpp"
#include "support/device_timer.hpp"
#include "support/random.hpp"

namespace {

using namespace spectx;
using bench::Gpu;
using Ints = std::vector<std::int32_t>;
using DeviceInts = test::DeviceArray<std::int32_t>;
using Table = std::vector<std::byte*>;

constexpr index_t kGiB = index_t{1} << 30;

// Llama-3.1-8B's rows: 32 layers, 8 KV heads, K and V of 128.
constexpr index_t kLayers = 32, kHeads = 8, kDim = 128;
constexpr index_t kPageRows = 64, kLength = 32'768, kSlots = 4096, kMisses = 400;

std::size_t size(index_t n) { return static_cast<std::size_t>(n); }

/// Pinned memory of the whole program: it takes half a second a GiB.
struct Tier {
  std::vector<Buffer> chunks;

  static Tier& of(index_t gib) {
    static Tier tier;
    while (static_cast<index_t>(tier.chunks.size()) < gib) {
      tier.chunks.emplace_back(Gpu::get().backend->memories().host, kGiB);
    }
    return tier;
  }
};

/// A pool's tables over a tier: requests of kLength, as many as fill it. As a pool hands out pages:
/// side by side those of all groups for the same tokens.
class Pool {
 public:
  Pool(DType host_dtype, index_t gib)
      : tier_(Tier::of(gib)),
        run_(make_host_run(DType::bf16, host_dtype, 2 * kDim, host_dtype == DType::bf16 ? 4 : 8)),
        groups_(kLayers / group_layers()),
        requests_(gib * pages_of_gib() / (groups_ * columns())),
        slot_page_bytes_(kPageRows * kHeads * group_layers() * 4 * kDim),
        device_(Gpu::get().backend->memories().device,
                requests_ * groups_ * (kSlots / kPageRows) * slot_page_bytes_),
        pages_(*Gpu::get().backend, device_pages()),
        host_pages_(*Gpu::get().backend, host_table()),
        resident_(*Gpu::get().backend, Ints(size(requests_), 0)) {}

  index_t requests() const { return requests_; }
  index_t groups() const { return groups_; }
  KVPoolView view() const {
    KVPoolView v;
    v.pages = pages_.data();
    v.host_pages = host_pages_.data();
    v.resident_groups = resident_.data();
    v.groups = groups_;
    v.page_columns = columns();
    v.page_rows = kPageRows;
    v.group_layers = group_layers();
    v.layers = kLayers;
    v.kv_heads = kHeads;
    v.k_dim = v.v_dim = kDim;
    v.row_bytes = 4 * kDim;
    v.slots = kSlots;
    v.max_length = kLength;
    v.run = run_;
    return v;
  }
  std::byte* slot_row(index_t request, index_t head, index_t slot) const {
    return device_pages()[size(request * groups_ * columns() + slot / kPageRows)] +
           (head * kPageRows + slot % kPageRows) * 4 * kDim;
  }
  std::byte* run_of(index_t request, index_t head, index_t token) const {
    return host_table()[size(request * groups_ * columns() + token / kPageRows)] +
           (token % kPageRows * kHeads + head) * run_.bytes;
  }

 private:
  static index_t columns() { return kLength / kPageRows; }
  index_t group_layers() const { return run_.dtype == DType::bf16 ? 4 : 8; }
  index_t host_page_bytes() const { return kPageRows * kHeads * run_.bytes; }
  index_t pages_of_gib() const { return kGiB / host_page_bytes(); }
  Table device_pages() const {
    Table table(size(requests_ * groups_ * columns()), nullptr);
    for (index_t i = 0; i < requests_ * groups_; ++i) {
      for (index_t p = 0; p < kSlots / kPageRows; ++p) {
        table[size(i * columns() + p)] =
            device_.data() + (i * (kSlots / kPageRows) + p) * slot_page_bytes_;
      }
    }
    return table;
  }
  Table host_table() const {
    Table table(size(requests_ * groups_ * columns()));
    for (index_t i = 0; i < static_cast<index_t>(table.size()); ++i) {
      const index_t request = i / groups_ / columns();
      const index_t group = i / columns() % groups_;
      const index_t page = (request * columns() + i % columns()) * groups_ + group;
      table[size(i)] = tier_.chunks[size(page / pages_of_gib())].data() +
                       page % pages_of_gib() * host_page_bytes();
    }
    return table;
  }

  Tier& tier_;
  HostRun run_;
  index_t groups_, requests_, slot_page_bytes_;
  Buffer device_;
  test::DeviceArray<std::byte*> pages_, host_pages_;
  DeviceInts resident_;
};

/// Random misses of a step, kMisses of every request and head, ascending.
struct Misses {
  explicit Misses(index_t requests) {
    test::Random random(5);
    Ints all_ids, all_slots;
    for (index_t e = 0; e < requests * kHeads; ++e) {
      const Ints own = random.ascending(kMisses, kLength);
      const Ints slot = random.permutation(kSlots);
      all_ids.insert(all_ids.end(), own.begin(), own.end());
      all_slots.insert(all_slots.end(), slot.begin(), slot.begin() + kMisses);
    }
    first_token = all_ids[0];
    first_slot = all_slots[0];
    Backend& backend = *Gpu::get().backend;
    memory.emplace_back(backend, all_ids);
    memory.emplace_back(backend, all_slots);
    memory.emplace_back(backend, Ints(size(requests * kHeads), kMisses));
    lists.miss_ids = memory[0].data();
    lists.miss_slots = memory[1].data();
    lists.miss_counts = memory[2].data();
    lists.max_budget = kMisses;
  }

  std::vector<DeviceInts> memory;
  StepLists lists;
  std::int32_t first_token = 0, first_slot = 0;
};

/// The first miss of group 0 arrives: ones in both types, times a scale of 2.
bool arrives(const Pool& pool, const Misses& misses, const std::function<void(int)>& gather) {
  Gpu& gpu = Gpu::get();
  const bool is_lossy = pool.view().run.is_lossy;
  std::byte* const run = pool.run_of(0, 0, misses.first_token);
  const std::vector<std::uint16_t> expected(2 * kDim, is_lossy ? 0x4000 : 0x3f80);
  std::vector<std::uint16_t> row(2 * kDim);
  if (is_lossy) {
    const float scales[2] = {2, 2};
    std::memcpy(run, scales, sizeof scales);
    std::memset(run + pool.view().run.first_row, 0x38, 2 * kDim);
  } else {
    std::memcpy(run, expected.data(), 4 * kDim);
  }
  gather(0);
  gpu.backend->copy(row.data(), pool.slot_row(0, 0, misses.first_slot), 4 * kDim, gpu.stream);
  gpu.backend->synchronize(gpu.stream);
  return row == expected;
}

/// The misses of one step, group after group: windows that move through the tier.
void gather_rows(benchmark::State& state, DType host_dtype) {
  Gpu& gpu = Gpu::get();
  const Pool pool(host_dtype, state.range(0));
  const Misses misses(pool.requests());
  std::vector<ScheduledItem> items;
  for (std::int32_t r = 0; r < static_cast<std::int32_t>(pool.requests()); ++r) {
    items.push_back({.request = {r}, .first = kLength - 1, .rows = 1, .selects = true});
  }
  const test::BatchData batch(*gpu.backend, items);
  const std::function<void(int)> step = [&](int) {
    for (index_t g = 0; g < pool.groups(); ++g) {
      gpu.backend->gather_rows({.batch = batch.get(),
                                .lists = misses.lists,
                                .pool = pool.view(),
                                .group = g,
                                .max_blocks = static_cast<int>(state.range(1))},
                               gpu.stream);
    }
  };
  if (!arrives(pool, misses, step)) return state.SkipWithError("a row is wrong");
  const index_t runs = pool.requests() * kHeads * kMisses;
  bench::time_on_device(state, runs * pool.view().run.bytes_of(kLayers), step);
}

/// A group of a request leaves, or comes back.
void move_rows(benchmark::State& state, DType host_dtype) {
  Gpu& gpu = Gpu::get();
  const Pool pool(host_dtype, 8);
  const KVPoolView view = pool.view();
  const RowPlace host{RowPlace::Kind::host, view.host_pages_of(0, 0)};
  const RowPlace tokens{RowPlace::Kind::tokens, view.pages_of(0, 0)};
  const bool leaves = state.range(0) != 0;
  const MoveRowsArgs move{.pool = view,
                          .request = {0},
                          .from = leaves ? tokens : host,
                          .to = leaves ? host : tokens,
                          .last = kSlots};
  bench::time_on_device(state, kSlots * kHeads * view.run.bytes_of(view.group_layers),
                        [&](int) { gpu.backend->move_rows(move, gpu.stream); });
}

void pinned_copy(benchmark::State& state) {
  Gpu& gpu = Gpu::get();
  const index_t bytes = index_t{256} << 20;
  const Buffer device(gpu.backend->memories().device, bytes);
  std::byte* const host = Tier::of(1).chunks[0].data();
  const bool leaves = state.range(0) != 0;
  bench::time_on_device(state, bytes, [&](int) {
    gpu.backend->copy(leaves ? host : device.data(), leaves ? device.data() : host, bytes,
                      gpu.stream);
  });
}

void with_tiers(benchmark::internal::Benchmark* b) {
  b->ArgNames({"GiB", "blocks"});
  for (const index_t gib : {8, 40}) {
    for (const index_t blocks : {8, 16, 32}) b->Args({gib, blocks});
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
