// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "spectx/backend.hpp"
#include "spectx/cpu/rows.hpp"

namespace spectx::cpu {

/// Keys asked for before they are read: the latency of the memory, of which the hardware foresees
/// too little even where rows are neighbours.
inline constexpr index_t kRowsAhead = 64;

/// The rows of one KV head that an item reads, by rank.
class KVRows {
 public:
  KVRows(const KVView& kv, index_t item, index_t request, index_t head) noexcept
      : kv_(&kv), request_(request), head_(head) {
    const index_t at = item * kv.kv_heads + head;
    if (kv.counts == nullptr || kv.counts[at] == kAllTokens) {
      is_staged_ = !kv.is_resident(request);
      return;
    }
    count_ = kv.counts[at];
    ids_ = kv.ids + at * kv.max_budget;
    places_ = kv.is_resident(request) ? ids_ : kv.slot_of_rank + at * kv.max_budget;
  }

  /// Ranks that a row at `position` may see: ids ascend, so they are the first
  /// ones.
  index_t visible(index_t position) const noexcept {
    if (ids_ == nullptr) return position + 1;
    return std::upper_bound(ids_, ids_ + count_, static_cast<std::int32_t>(position)) - ids_;
  }

  /// Addresses of the rows of ranks [begin, begin + count).
  void find(index_t begin, index_t count, const std::byte** rows) const noexcept {
    if (places_ != nullptr) {
      find(*kv_, request_, head_, places_ + begin, count, rows);
      return;
    }
    for (index_t i = 0; i < count;) {
      const index_t n = begin + i;
      const index_t run = std::min(count - i, kv_->page_rows - n % kv_->page_rows);
      const std::byte* const first = kv_->row(request_, head_, n, is_staged_);
      for (index_t j = 0; j < run; ++j) rows[i + j] = first + j * kv_->row_stride;
      i += run;
    }
  }

  /// Addresses of rows `places[i]`, tokens or slots.
  static void find(const KVView& kv, index_t request, index_t head, const std::int32_t* places,
                   index_t count, const std::byte** rows) noexcept {
    // Two 32-bit divisions are far cheaper than a 64-bit one.
    const std::uint32_t page_rows = static_cast<std::uint32_t>(kv.page_rows);
    std::byte* const* const pages = kv.pages_of(request, false);
    const index_t offset = kv.layer_offset + head * kv.head_stride;
    for (index_t i = 0; i < count; ++i) {
      const std::uint32_t n = static_cast<std::uint32_t>(places[i]);
      rows[i] = pages[n / page_rows] + offset + static_cast<index_t>(n % page_rows) * kv.row_stride;
    }
  }

 private:
  const KVView* kv_;
  index_t request_;
  index_t head_;
  index_t count_ = 0;
  bool is_staged_ = false;
  const std::int32_t* ids_ = nullptr;     // null: every token
  const std::int32_t* places_ = nullptr;  // rank -> token or slot; null: the rank itself
};

/// Sizes of an attention call.
struct AttendShape {
  explicit AttendShape(const AttendArgs& a) noexcept
      : query_heads(a.q.shape[1]),
        group(a.q.shape[1] / a.kv.kv_heads),
        k_dim(a.kv.k_dim),
        v_dim(a.kv.v_dim),
        scale(a.scale != 0 ? a.scale : 1 / std::sqrt(static_cast<float>(a.kv.k_dim))) {}

  index_t query_heads, group, k_dim, v_dim;
  float scale;
};

}  // namespace spectx::cpu
