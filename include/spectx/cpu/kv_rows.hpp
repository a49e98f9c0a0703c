// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "spectx/backend.hpp"
#include "spectx/cpu/rows.hpp"

namespace spectx::cpu {

/// The rows of one KV head that an item reads, by rank.
class KVRows {
 public:
  KVRows(const KVView& kv, index_t item, index_t request, index_t head) noexcept
      : kv_(&kv), request_(request), head_(head) {
    const index_t at = item * kv.kv_heads + head;
    if (kv.counts == nullptr || kv.counts[at] == kAllTokens) return;
    count_ = kv.counts[at];
    ids_ = kv.ids + at * kv.max_budget;
    places_ = kv.is_resident(request) ? ids_ : kv.slot_of_rank + at * kv.max_budget;
  }

  /// Ranks that a row at `position` may see: ids ascend, so they are the first ones.
  index_t visible(index_t position) const noexcept {
    if (ids_ == nullptr) return position + 1;
    return std::upper_bound(ids_, ids_ + count_, static_cast<std::int32_t>(position)) - ids_;
  }

  const std::byte* at(index_t rank) const noexcept {
    return kv_->row(request_, head_, places_ == nullptr ? rank : index_t{places_[rank]});
  }

  /// Rows [begin, begin + count) as floats: k[i * k_stride], v[i * v_stride]; null v: K only. Asks
  /// for the rows after them, up to `last`: chosen rows are scattered, and the hardware foresees
  /// none.
  template <class T>
  void load(index_t begin, index_t count, index_t last, float* k, index_t k_stride, float* v,
            index_t v_stride) const noexcept {
    constexpr index_t kAhead = 8;  // rows
    const index_t k_bytes = kv_->k_dim * static_cast<index_t>(sizeof(T));
    const index_t v_bytes = kv_->v_dim * static_cast<index_t>(sizeof(T));
    for (index_t i = 0; i < count; ++i) {
      if (begin + i + kAhead < last) {
        const std::byte* const ahead = at(begin + i + kAhead);
        prefetch(ahead + kv_->k_offset, k_bytes);
        if (v != nullptr) prefetch(ahead + kv_->v_offset, v_bytes);
      }
      const std::byte* const from = at(begin + i);
      to_floats(reinterpret_cast<const T*>(from + kv_->k_offset), kv_->k_dim, k + i * k_stride);
      if (v == nullptr) continue;
      to_floats(reinterpret_cast<const T*>(from + kv_->v_offset), kv_->v_dim, v + i * v_stride);
    }
  }

 private:
  const KVView* kv_;
  index_t request_;
  index_t head_;
  index_t count_ = 0;
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
