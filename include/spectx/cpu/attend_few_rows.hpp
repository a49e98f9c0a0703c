// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <array>

#include "spectx/cpu/context.hpp"
#include "spectx/cpu/kv_rows.hpp"
#include "spectx/cpu/lanes.hpp"

namespace spectx::cpu {

/// Attention of items with few rows: decode, verification of drafts. Bound by the reading of K and
/// V. Ranks are cut into splits of a fixed size; each gives a partial softmax, and the partials of
/// a row are combined in ascending order, so that a result depends on the rows that it sees alone.
template <class T>
class AttendFewRows {
 public:
  AttendFewRows(const AttendArgs& a, Context& context) noexcept
      : a_(a), shape_(a), context_(context) {}

  /// All items that have a row and at most `most_rows`.
  void run(index_t most_rows) {
    const index_t last = num_items(*a_.batch);
    for (index_t first = 0; first < last;) {
      first = plan(first, last, most_rows);
      context_.for_each(num_tasks_, [&](index_t task, int thread) { attend(task, thread); });
      const index_t heads = num_rows_ * shape_.query_heads;
      const index_t head_bytes = num_partials_ * partial_floats() * 4 / std::max(heads, index_t{1});
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

  static constexpr index_t kSplitRanks = 128;
  static constexpr index_t kMostTaskSplits = 16;
  static constexpr index_t kHeader = 16;  // floats before a partial's V: a cache line
  static constexpr index_t kMostPartialFloats = index_t{1} << 22;  // 16 MiB, but for a single item

  /// What the tasks of one item need.
  struct Item {
    index_t item, row_begin, rows;
    index_t splits;  // of its longest head
    index_t first_row, first_partial, first_task;
  };

  index_t partial_floats() const noexcept { return kHeader + padded<float>(shape_.v_dim); }

  /// [largest score, sum of weights, unused to kHeader, weighted V]
  float* partial(const Item& item, index_t row, index_t query_head, index_t split) const noexcept {
    const index_t i = (row * shape_.query_heads + query_head) * item.splits + split;
    return partials_ + (item.first_partial + i) * partial_floats();
  }
  KVRows rows_of(const Item& item, index_t head) const noexcept {
    return {a_.kv, item.item, a_.batch->request.data[item.item], head};
  }
  index_t position(const Item& item, index_t row) const noexcept {
    return a_.batch->position.data[item.row_begin + row];
  }

  Item measure(index_t i) const noexcept {
    Item item{};
    item.item = i;
    item.row_begin = a_.batch->row_begin.data[i];
    item.rows = a_.batch->row_begin.data[i + 1] - item.row_begin;
    index_t longest = 1;
    for (index_t h = 0; h < a_.kv.kv_heads && item.rows > 0; ++h) {
      longest = std::max(longest, rows_of(item, h).visible(position(item, item.rows - 1)));
    }
    item.splits = (longest + kSplitRanks - 1) / kSplitRanks;
    return item;
  }

  /// Takes items from `first` on, until their partials fill the scratch; returns the next one.
  index_t plan(index_t first, index_t last, index_t most_rows) {
    const auto partials_of = [&](const Item& item) {
      return item.rows > most_rows ? 0 : item.rows * shape_.query_heads * item.splits;
    };
    index_t end = first;
    for (num_partials_ = 0; end < last; ++end) {
      const index_t more = partials_of(measure(end));
      if (num_partials_ > 0 && (num_partials_ + more) * partial_floats() > kMostPartialFloats)
        break;
      num_partials_ += more;
    }
    const index_t item_bytes = padded<std::byte>((end - first) * index_t{sizeof(Item)});
    Carver carver(context_.shared().reserve(item_bytes + num_partials_ * partial_floats() * 4));
    items_ = carver.take<Item>(end - first);
    partials_ = carver.take<float>(num_partials_ * partial_floats());

    const index_t all_splits = num_partials_ * a_.kv.kv_heads / shape_.query_heads;
    task_splits_ = std::clamp(all_splits / context_.threads(), index_t{1}, kMostTaskSplits);
    num_items_ = num_rows_ = num_tasks_ = num_partials_ = 0;
    for (index_t i = first; i < end; ++i) {
      Item item = measure(i);
      if (partials_of(item) == 0) continue;
      item.first_row = num_rows_;
      item.first_partial = num_partials_;
      item.first_task = num_tasks_;
      num_rows_ += item.rows;
      num_partials_ += partials_of(item);
      num_tasks_ += (a_.kv.kv_heads * item.splits + task_splits_ - 1) / task_splits_;
      items_[num_items_++] = item;
    }
    return end;
  }

  /// The item of a task or row: the last one that does not begin after it.
  const Item& item_of(index_t Item::*first, index_t i) const noexcept {
    const Item* const after =
        std::upper_bound(items_, items_ + num_items_, i,
                         [first](index_t value, const Item& item) { return value < item.*first; });
    return after[-1];
  }

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
      const KVRows rows = rows_of(item, found.head);
      const index_t begin = found.split * kSplitRanks;
      const index_t seen = rows.visible(position(item, item.rows - 1));
      found.count = std::clamp(seen - begin, index_t{0}, kSplitRanks);
      rows.find(begin, found.count, found.rows.data());
    }
    return index;
  }

  /// Some neighbouring splits of one item, head by head.
  void attend(index_t task, int thread) {
    const Item& item = item_of(&Item::first_task, task);
    const index_t q_stride = padded<float>(shape_.k_dim);
    const index_t q_floats = item.rows * shape_.group * q_stride;
    Carver carver(context_.of_thread(thread).reserve((q_floats + shape_.group * kSplitRanks) * 4));
    float* const q = carver.take<float>(q_floats);
    float* const weights = carver.take<float>(shape_.group * kSplitRanks);

    index_t index = (task - item.first_task) * task_splits_;
    const index_t end = std::min(index + task_splits_, a_.kv.kv_heads * item.splits);
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
      const KVRows rows = rows_of(item, split.head);
      for (index_t r = 0; r < item.rows; ++r) {
        const index_t visible =
            std::min(split.count, rows.visible(position(item, r)) - split.split * kSplitRanks);
        if (visible <= 0) continue;
        const Vectors queries{q + r * shape_.group * q_stride, q_stride};
        attend_split(queries, split.rows.data(), next.rows.data(), visible, weights,
                     partial(item, r, split.head * shape_.group, split.split),
                     item.splits * partial_floats());
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
    const Item& item = item_of(&Item::first_row, row_index);
    const index_t r = row_index - item.first_row;
    const index_t visible = rows_of(item, query_head / shape_.group).visible(position(item, r));
    const index_t splits = (visible + kSplitRanks - 1) / kSplitRanks;
    Floats out(row(a_.out, item.row_begin + r, query_head), shape_.v_dim);
    out.setZero();
    if (splits == 0) return;
    float largest = partial(item, r, query_head, 0)[0];
    for (index_t s = 1; s < splits; ++s) {
      largest = std::max(largest, partial(item, r, query_head, s)[0]);
    }
    float weight = 0;
    for (index_t s = 0; s < splits; ++s) {
      const float* const from = partial(item, r, query_head, s);
      const float share = std::exp(from[0] - largest);
      weight += share * from[1];
      out += share * ConstFloats(from + kHeader, shape_.v_dim);
    }
    out /= weight;
  }

  const AttendArgs& a_;
  AttendShape shape_;
  Context& context_;
  Item* items_ = nullptr;
  float* partials_ = nullptr;
  index_t num_items_ = 0, num_rows_ = 0, num_tasks_ = 0, num_partials_ = 0;
  index_t task_splits_ = 1;
};

}  // namespace spectx::cpu
