// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/host_run.hpp"
#include "spectx/types.hpp"
#include "spectx/view.hpp"

namespace spectx {

/// How the rows of one layer lie in a device page, what changes fastest last. `split` orders have
/// all K before all V, as in paged caches of [2, heads, rows, dim] and [2, rows, heads, dim]; they
/// need k_dim == v_dim.
enum class PageOrder : std::uint8_t {
  heads,        // [kv head][row][K | V]
  rows,         // [row][kv head][K | V]
  split_heads,  // [K, V][kv head][row]
  split_rows,   // [K, V][row][kv head]
};

constexpr bool is_split(PageOrder order) noexcept {
  return order == PageOrder::split_heads || order == PageOrder::split_rows;
}

/// Bytes in a device page from a layer, a KV head and a row to the next, and from a row's K to its
/// V.
struct PageStrides {
  index_t layer = 0, head = 0, row = 0, v = 0;
};

constexpr PageStrides page_strides(PageOrder order, index_t page_rows, index_t kv_heads,
                                   index_t k_bytes, index_t v_bytes) noexcept {
  const bool has_heads_first = order == PageOrder::heads || order == PageOrder::split_heads;
  const index_t width = is_split(order) ? k_bytes : k_bytes + v_bytes;
  return {.layer = page_rows * kv_heads * (k_bytes + v_bytes),
          .head = has_heads_first ? page_rows * width : width,
          .row = has_heads_first ? width : kv_heads * width,
          .v = is_split(order) ? page_rows * kv_heads * k_bytes : k_bytes};
}

/// Where the rows of one layer are: plain data, by value, device pointers, what an attention kernel
/// needs and nothing else. Valid until end_step.
///
/// The K of row n of KV head h of request r is at table[r * table_stride + n / page_rows] +
/// layer_offset + h * head_stride + (n % page_rows) * row_stride; n is a token where the layer's
/// group is resident, else a slot. An item that reads everything of an offloaded group finds token
/// n in `staging`, likewise but without layer_offset.
struct KVView {
  std::byte* const* table = nullptr;    // [max_requests, table_stride] page addresses
  index_t table_stride = 0;             // pages
  std::byte* const* staging = nullptr;  // [max_requests, staging_stride] pages of this layer alone
  index_t staging_stride = 0;           // pages
  index_t page_rows = 0;
  index_t layer_offset = 0, head_stride = 0, row_stride = 0;  // bytes inside a page
  index_t v_offset = 0;                                       // bytes from a row's K to its V
  DType dtype = DType::bf16;
  index_t kv_heads = 0, k_dim = 0, v_dim = 0;
  // Which rows. Null counts: all tokens of every item.
  const std::int32_t* counts = nullptr;        // [items, kv_heads]
  const std::int32_t* ids = nullptr;           // [items, kv_heads, max_budget] rank -> token
  const std::int32_t* slot_of_rank = nullptr;  // [items, kv_heads, max_budget] rank -> slot
  index_t max_budget = 0;
  const std::int32_t* resident_groups = nullptr;  // [max_requests]; null: everything is resident
  index_t group = 0;

  bool is_resident(index_t request) const noexcept {
    return resident_groups == nullptr || group < resident_groups[request];
  }
  /// Page addresses for an item of the request, such that (n % page_rows) * row_stride and
  /// h * head_stride from offset_of() on is the K of a row.
  std::byte* const* pages_of(index_t request, bool is_staged) const noexcept {
    return is_staged ? staging + request * staging_stride : table + request * table_stride;
  }
  index_t offset_of(bool is_staged) const noexcept { return is_staged ? 0 : layer_offset; }
  /// The K of row n.
  std::byte* row(index_t request, index_t kv_head, index_t n,
                 bool is_staged = false) const noexcept {
    return pages_of(request, is_staged)[n / page_rows] + offset_of(is_staged) +
           kv_head * head_stride + (n % page_rows) * row_stride;
  }
};

/// KVPool's device tables and geometry, for the operations that move rows between the tiers. Plain
/// data, by value; device pointers. `slots == 0`: one memory, no slot map, no host tier.
struct KVPoolView {
  std::byte* const* pages = nullptr;       // [max_requests, groups, page_columns] token pages of a
                                           // resident group, slot pages of an offloaded one
  std::byte* const* host_pages = nullptr;  // [max_requests, groups, page_columns]
  const std::int32_t* resident_groups = nullptr;  // [max_requests]
  std::int32_t* durable = nullptr;        // [max_requests] rows below it are in the host tier
  std::int32_t* slot_of_token = nullptr;  // [max_requests, kv_heads, max_length]; -1: none
  std::int32_t* token_of_slot = nullptr;  // [max_requests, kv_heads, slots]; -1: free
  std::int32_t* last_used = nullptr;      // [max_requests, kv_heads, slots] step
  std::int32_t* clock = nullptr;          // [1] steps begun
  index_t groups = 0, page_columns = 0, page_rows = 0, group_layers = 0, layers = 0;
  index_t kv_heads = 0, k_dim = 0, v_dim = 0, slots = 0, max_length = 0;
  index_t row_bytes = 0, k_bytes = 0;  // of a row's K and V, and of its K
  PageStrides strides;                 // of device pages
  DType dtype = DType::bf16;
  HostRun run;  // how a token's rows lie in the host tier

  /// Layers of group g; the last group may have fewer.
  index_t layers_of(index_t g) const noexcept {
    const index_t left = layers - g * group_layers;
    return left < group_layers ? left : group_layers;
  }
  std::byte* const* pages_of(index_t request, index_t g) const noexcept {
    return pages + (request * groups + g) * page_columns;
  }
  std::byte* const* host_pages_of(index_t request, index_t g) const noexcept {
    return host_pages + (request * groups + g) * page_columns;
  }
  /// The K of row n (token or slot) of a layer of the group in its device pages.
  std::byte* device_row(std::byte* const* group_pages, index_t layer_in_group, index_t kv_head,
                        index_t n) const noexcept {
    return group_pages[n / page_rows] + layer_in_group * strides.layer + kv_head * strides.head +
           n % page_rows * strides.row;
  }
  /// One token's run, all layers of the group, in its host pages.
  std::byte* host_run(std::byte* const* group_pages, index_t kv_head,
                      index_t token) const noexcept {
    return group_pages[token / page_rows] + ((token % page_rows) * kv_heads + kv_head) * run.bytes;
  }
};

/// What one step's comparison of a selection with the slot map gives. Device pointers.
struct StepLists {
  std::int32_t* slot_of_rank = nullptr;  // [items, kv_heads, max_budget]
  std::int32_t* miss_ids = nullptr;      // [items, kv_heads, max_budget] tokens to fetch, ascending
  std::int32_t* miss_slots = nullptr;    // [items, kv_heads, max_budget] where they go
  std::int32_t* miss_counts = nullptr;   // [items, kv_heads]
  std::int32_t* hit_counts = nullptr;    // [items, kv_heads]
  index_t max_budget = 0;
};

}  // namespace spectx
