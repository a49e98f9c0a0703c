// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <array>

#include "spectx/cpu/attend_items.hpp"
#include "spectx/cpu/lanes.hpp"

namespace spectx::cpu {

/// Attention of items with few rows: decode, verification of drafts. Bound by the reading of K and
/// V. Ranks are cut into splits of a fixed size; each gives a partial softmax, and the partials of
/// a row are combined in ascending order, so that a result depends on the rows that it sees alone.
template <class T>
class AttendFewRows {
 public:
  AttendFewRows(const AttendArgs& a, Context& context) noexcept
      : a_(a), shape_(a), context_(context), items_(a, shape_, context) {}

  /// All items that have a row and at most `most_rows`.
  void run(index_t most_rows) {
    const index_t last = num_items(*a_.batch);
    for (index_t first = 0; first < last;) {
      first = items_.plan(first, last, most_rows);
      context_.for_each(items_.num_tasks(),
                        [&](index_t task, int thread) { attend(task, thread); });
      const index_t heads = items_.num_rows() * shape_.query_heads;
      const index_t head_bytes =
          items_.num_partials() * items_.partial_floats() * 4 / std::max(heads, index_t{1});
      context_.for_ranges(heads, head_bytes, [&](index_t begin, index_t end, int) {
        for (index_t i = begin; i < end; ++i) {
          combine(i / shape_.query_heads, i % shape_.query_heads);
        }
      });
    }
  }

 private:
  using Floats = Eigen::Map<Eigen::ArrayXf>;
  using ConstFloats = Eigen::Map<const Eigen::ArrayXf>;
  using Item = AttendItems::Item;
  static constexpr index_t kSplitRanks = AttendItems::kSplitRanks;
  static constexpr index_t kHeader = AttendItems::kHeader;

  /// The rows of one split of one KV head of an item, found.
  struct Found {
    index_t head = 0, split = 0, count = 0;
    std::array<const std::byte*, kSplitRanks> rows;
  };

  /// Finds the first split from `index` on, head by head, that has rows; returns the index after
  /// it, or `end` with none found.
  index_t find(const Item& item, index_t index, index_t end, Found& found) const noexcept {
    found.count = 0;
    for (; index < end && found.count == 0; ++index) {
      found.head = index / item.splits;
      found.split = index % item.splits;
      const KVRows rows = items_.rows_of(item, found.head);
      const index_t begin = found.split * kSplitRanks;
      const index_t seen = rows.visible(items_.position(item, item.rows - 1));
      found.count = std::clamp(seen - begin, index_t{0}, kSplitRanks);
      rows.find(begin, found.count, found.rows.data());
    }
    return index;
  }

  /// Some neighbouring splits of one item, head by head.
  void attend(index_t task, int thread) {
    const Item& item = items_.item_of(&Item::first_task, task);
    const index_t q_stride = padded<float>(shape_.k_dim);
    const index_t q_floats = item.rows * shape_.group * q_stride;
    Carver carver(context_.of_thread(thread).reserve((q_floats + shape_.group * kSplitRanks) * 4));
    float* const q = carver.take<float>(q_floats);
    float* const weights = carver.take<float>(shape_.group * kSplitRanks);

    index_t index = (task - item.first_task) * items_.task_splits();
    const index_t end = std::min(index + items_.task_splits(), a_.kv.kv_heads * item.splits);
    std::array<Found, 2> found;
    index = find(item, index, end, found[0]);
    std::for_each_n(found[0].rows.begin(), found[0].count, [this](const std::byte* row) {
      ask_for_k(row);
      ask_for_v(row);
    });
    index_t loaded_head = -1;
    for (std::size_t now = 0; found[now].count > 0; now = 1 - now) {
      const Found& split = found[now];
      Found& next = found[1 - now];
      index = find(item, index, end, next);
      std::fill(next.rows.begin() + next.count, next.rows.end(), split.rows[0]);
      if (split.head != loaded_head) load_queries(item, split.head, q);
      loaded_head = split.head;
      const KVRows rows = items_.rows_of(item, split.head);
      for (index_t r = 0; r < item.rows; ++r) {
        const index_t visible = std::min(
            split.count, rows.visible(items_.position(item, r)) - split.split * kSplitRanks);
        if (visible <= 0) continue;
        const Vectors queries{q + r * shape_.group * q_stride, q_stride};
        attend_split(queries, split.rows.data(), next.rows.data(), visible, weights,
                     items_.partial(item, r, split.head * shape_.group, split.split),
                     item.splits * items_.partial_floats());
      }
    }
  }

  void ask_for_k(const std::byte* row) const noexcept {
    prefetch(row, shape_.k_dim * index_t{sizeof(T)});
  }
  void ask_for_v(const std::byte* row) const noexcept {
    prefetch(row + a_.kv.v_offset, shape_.v_dim * index_t{sizeof(T)});
  }

  /// The queries of one KV head, scaled.
  void load_queries(const Item& item, index_t head, float* q) const noexcept {
    const index_t stride = padded<float>(shape_.k_dim);
    for (index_t i = 0; i < item.rows * shape_.group; ++i) {
      const float* const from = row<const float>(a_.q, item.row_begin + i / shape_.group,
                                                 head * shape_.group + i % shape_.group);
      for (index_t d = 0; d < shape_.k_dim; ++d) q[i * stride + d] = from[d] * shape_.scale;
    }
  }

  /// The partials of the query heads of one row over `count` rows. While they are computed the
  /// rows of the split after it are on their way, K with K and V with V, so that the memory is
  /// never idle.
  void attend_split(const Vectors& queries, const std::byte* const* rows,
                    const std::byte* const* next, index_t count, float* weights, float* partials,
                    index_t partial_stride) const {
    const auto k_at = [rows, next, this](index_t i) {
      ask_for_k(next[i]);
      return reinterpret_cast<const T*>(rows[i]);
    };
    const auto v_at = [rows, next, this](index_t i) {
      ask_for_v(next[i]);
      return reinterpret_cast<const T*>(rows[i] + a_.kv.v_offset);
    };
    for_query_runs(shape_.group, [&]<index_t kQueries>(index_t first) {
      dot_rows<kQueries, T>({queries.data + first * queries.stride, queries.stride}, count,
                            shape_.k_dim, k_at, weights, kSplitRanks);
      for (index_t g = 0; g < kQueries; ++g) {
        float* const partial = partials + (first + g) * partial_stride;
        Floats w(weights + g * kSplitRanks, count);
        partial[0] = w.maxCoeff();
        w = (w - partial[0]).exp();
        partial[1] = w.sum();
      }
      sum_rows<kQueries, T>({weights, kSplitRanks}, count, shape_.v_dim, v_at,
                            partials + first * partial_stride + kHeader, partial_stride);
    });
  }

  void combine(index_t row_index, index_t query_head) {
    const Item& item = items_.item_of(&Item::first_row, row_index);
    const index_t r = row_index - item.first_row;
    const index_t visible =
        items_.rows_of(item, query_head / shape_.group).visible(items_.position(item, r));
    const index_t splits = (visible + kSplitRanks - 1) / kSplitRanks;
    Floats out(row(a_.out, item.row_begin + r, query_head), shape_.v_dim);
    out.setZero();
    if (splits == 0) return;
    float largest = items_.partial(item, r, query_head, 0)[0];
    for (index_t s = 1; s < splits; ++s) {
      largest = std::max(largest, items_.partial(item, r, query_head, s)[0]);
    }
    float weight = 0;
    for (index_t s = 0; s < splits; ++s) {
      const float* const from = items_.partial(item, r, query_head, s);
      const float share = std::exp(from[0] - largest);
      weight += share * from[1];
      out += share * ConstFloats(from + kHeader, shape_.v_dim);
    }
    out /= weight;
  }

  const AttendArgs& a_;
  AttendShape shape_;
  Context& context_;
  AttendItems items_;
};

}  // namespace spectx::cpu
