// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "support/batches.hpp"
#include "support/device_timer.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

namespace spectx::bench::tier {

/// Llama-3.1-8B's rows: 32 layers, 8 KV heads, K and V of 128.
inline constexpr index_t kLayers = 32, kHeads = 8, kDim = 128;
inline constexpr index_t kPageRows = 64, kLength = 32'768, kSlots = 4096, kMisses = 400;
inline constexpr index_t kGiB = index_t{1} << 30;

using Ints = std::vector<std::int32_t>;
using DeviceInts = test::DeviceArray<std::int32_t>;
using Table = std::vector<std::byte*>;

/// Pinned memory of the whole program: it takes 0.2 s a GiB.
struct Memory {
  std::vector<Buffer> chunks;

  static Memory& of(index_t gib) {
    static Memory tier;
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
      : tier_(Memory::of(gib)),
        run_(make_host_run(DType::bf16, host_dtype, 2 * kDim, host_dtype == DType::bf16 ? 4 : 8)),
        groups_(kLayers / group_layers()),
        requests_(gib * pages_of_gib() / (groups_ * columns())),
        slot_page_bytes_(kPageRows * kHeads * group_layers() * 4 * kDim),
        device_(Gpu::get().backend->memories().device,
                requests_ * groups_ * (kSlots / kPageRows) * slot_page_bytes_),
        pages_(*Gpu::get().backend, device_pages()),
        host_pages_(*Gpu::get().backend, host_table()),
        resident_(*Gpu::get().backend, Ints(test::at(requests_), 0)) {}

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
    v.k_bytes = 2 * kDim;
    v.strides = page_strides(PageOrder::heads, kPageRows, kHeads, 2 * kDim, 2 * kDim);
    v.slots = kSlots;
    v.max_length = kLength;
    v.run = run_;
    return v;
  }
  std::byte* slot_row(index_t request, index_t head, index_t slot) const {
    return device_pages()[test::at(request * groups_ * columns() + slot / kPageRows)] +
           (head * kPageRows + slot % kPageRows) * 4 * kDim;
  }
  std::byte* run_of(index_t request, index_t head, index_t token) const {
    return host_table()[test::at(request * groups_ * columns() + token / kPageRows)] +
           (token % kPageRows * kHeads + head) * run_.bytes;
  }

 private:
  static index_t columns() { return kLength / kPageRows; }
  index_t group_layers() const { return run_.dtype == DType::bf16 ? 4 : 8; }
  index_t host_page_bytes() const { return kPageRows * kHeads * run_.bytes; }
  index_t pages_of_gib() const { return kGiB / host_page_bytes(); }
  Table device_pages() const {
    Table table(test::at(requests_ * groups_ * columns()), nullptr);
    for (index_t i = 0; i < requests_ * groups_; ++i) {
      for (index_t p = 0; p < kSlots / kPageRows; ++p) {
        table[test::at(i * columns() + p)] =
            device_.data() + (i * (kSlots / kPageRows) + p) * slot_page_bytes_;
      }
    }
    return table;
  }
  Table host_table() const {
    Table table(test::at(requests_ * groups_ * columns()));
    for (index_t i = 0; i < static_cast<index_t>(table.size()); ++i) {
      const index_t request = i / groups_ / columns();
      const index_t group = i / columns() % groups_;
      const index_t page = (request * columns() + i % columns()) * groups_ + group;
      table[test::at(i)] = tier_.chunks[test::at(page / pages_of_gib())].data() +
                           page % pages_of_gib() * host_page_bytes();
    }
    return table;
  }

  Memory& tier_;
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
    memory.emplace_back(backend, Ints(test::at(requests * kHeads), kMisses));
    lists.miss_ids = memory[0].data();
    lists.miss_slots = memory[1].data();
    lists.miss_counts = memory[2].data();
    lists.max_budget = kMisses;
  }

  std::vector<DeviceInts> memory;
  StepLists lists;
  std::int32_t first_token = 0, first_slot = 0;
};

/// Puts the misses of a step on a stream, group after group: windows that move through the tier.
class Gather {
 public:
  Gather(DType host_dtype, index_t gib)
      : pool_(host_dtype, gib),
        misses_(pool_.requests()),
        batch_(*Gpu::get().backend, items_of(pool_.requests())) {}

  const Pool& pool() const { return pool_; }
  const Misses& misses() const { return misses_; }
  /// That cross the link.
  index_t bytes() const {
    return pool_.requests() * kHeads * kMisses * pool_.view().run.bytes_of(kLayers);
  }
  void run(int blocks, StreamView stream) const {
    for (index_t g = 0; g < pool_.groups(); ++g) {
      Gpu::get().backend->gather_rows({.batch = batch_.get(),
                                       .lists = misses_.lists,
                                       .pool = pool_.view(),
                                       .group = g,
                                       .max_blocks = blocks},
                                      stream);
    }
  }

 private:
  static std::vector<ScheduledItem> items_of(index_t requests) {
    std::vector<ScheduledItem> items;
    for (std::int32_t r = 0; r < static_cast<std::int32_t>(requests); ++r) {
      items.push_back({.request = {r}, .first = kLength - 1, .rows = 1, .selects = true});
    }
    return items;
  }

  Pool pool_;
  Misses misses_;
  test::BatchData batch_;
};

}  // namespace spectx::bench::tier
