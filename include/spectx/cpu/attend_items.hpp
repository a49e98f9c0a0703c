// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "spectx/cpu/context.hpp"
#include "spectx/cpu/kv_rows.hpp"

namespace spectx::cpu {

/// The items of an attention with few rows, as many at a time as the scratch has room for: their
/// splits of a fixed number of ranks, in tasks of neighbouring ones, and a partial for each.
class AttendItems {
 public:
  static constexpr index_t kSplitRanks = 128;
  static constexpr index_t kHeader = 16;  // floats before a partial's V: a cache line

  /// What the tasks of one item need.
  struct Item {
    index_t item, row_begin, rows;
    index_t splits;  // of its longest head
    index_t first_row, first_partial, first_task;
  };

  AttendItems(const AttendArgs& a, const AttendShape& shape, Context& context) noexcept
      : a_(a), shape_(shape), context_(context) {}

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

  index_t num_rows() const noexcept { return num_rows_; }
  index_t num_tasks() const noexcept { return num_tasks_; }
  index_t num_partials() const noexcept { return num_partials_; }
  /// Of a task.
  index_t task_splits() const noexcept { return task_splits_; }

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

 private:
  static constexpr index_t kMostTaskSplits = 16;
  static constexpr index_t kMostPartialFloats = index_t{1} << 22;  // 16 MiB, but for a single item

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

  const AttendArgs& a_;
  const AttendShape& shape_;
  Context& context_;
  Item* items_ = nullptr;
  float* partials_ = nullptr;
  index_t num_items_ = 0, num_rows_ = 0, num_tasks_ = 0, num_partials_ = 0;
  index_t task_splits_ = 1;
};

}  // namespace spectx::cpu
