// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <vector>

#include "spectx/backend.hpp"
#include "spectx/detail/page_store.hpp"
#include "spectx/pool_layout.hpp"

namespace spectx::detail {

/// Fills a Batch: the arrays are laid out in one host block and go to the device in one copy.
class BatchWriter {
 public:
  BatchWriter(Backend& backend, const PoolPlan& plan, const PoolLayout& layout,
              MemoryResource& memory)
      : backend_(&backend),
        device_(memory, layout.batch_bytes),
        host_(static_cast<std::size_t>(layout.batch_bytes)),
        row_bytes_(PoolLayout::aligned(plan.max_step_rows * 4)),
        item_bytes_(PoolLayout::aligned((plan.max_requests + 1) * 4)) {
    items_.reserve(static_cast<std::size_t>(plan.max_requests));
  }

  /// `items` and `scheduled` in the same order. Async on `stream`.
  const Batch& write(std::span<const BatchItem> items, std::span<const ScheduledItem> scheduled,
                     StreamView stream) {
    items_.assign(scheduled.begin(), scheduled.end());
    const Arrays<std::int32_t> to = arrays(host_.data());
    index_t row = 0;
    index_t lead = 0;
    batch_ = Batch{};
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const ScheduledItem& item = items_[i];
      to.request[i] = item.request.value;
      to.row_begin[i] = static_cast<std::int32_t>(row);
      to.lead_begin[i] = static_cast<std::int32_t>(lead);
      to.length[i] = static_cast<std::int32_t>(item.first + item.rows);
      to.selects[i] = item.selects ? 1 : 0;
      for (index_t n = 0; n < item.rows; ++n, ++row) {
        to.tokens[row] = items[i].tokens[static_cast<std::size_t>(n)];
        to.item[row] = static_cast<std::int32_t>(i);
        to.position[row] = static_cast<std::int32_t>(item.first + n);
        to.follow_row[row] = n + 1 < item.rows ? static_cast<std::int32_t>(row + 1) : -1;
        if (n == 0 || item.selects) to.lead_row[lead++] = static_cast<std::int32_t>(row);
      }
      to.last_row[i] = static_cast<std::int32_t>(row - 1);
      batch_.max_rows_per_item = std::max(batch_.max_rows_per_item, item.rows);
      batch_.needs_selection = batch_.needs_selection || item.selects;
    }
    to.row_begin[items_.size()] = static_cast<std::int32_t>(row);
    to.lead_begin[items_.size()] = static_cast<std::int32_t>(lead);
    if (row > 0) {
      backend_->copy(device_.data(), host_.data(), static_cast<index_t>(host_.size()), stream);
    }
    point(batch_, device_.data(), row, lead);
    return batch_;
  }

  const Batch& batch() const noexcept { return batch_; }
  /// The batch with arrays of its own in `memory`, PoolLayout::batch_bytes. Async on `stream`.
  Batch copy_to(std::byte* memory, StreamView stream) const {
    Batch copy = batch_;
    backend_->copy(memory, device_.data(), device_.bytes(), stream);
    point(copy, memory, batch_.num_rows, batch_.lead_row.size);
    return copy;
  }

 private:
  template <class T>
  struct Arrays {
    T *tokens, *item, *position, *lead_row, *follow_row;                // [rows]
    T *request, *row_begin, *last_row, *length, *selects, *lead_begin;  // [items + 1]
  };

  Arrays<std::int32_t> arrays(std::byte* base) const {
    Carver carver(base);
    Arrays<std::int32_t> a{};
    for (std::int32_t** rows : {&a.tokens, &a.item, &a.position, &a.lead_row, &a.follow_row}) {
      *rows = carver.take<std::int32_t>(row_bytes_);
    }
    for (std::int32_t** items :
         {&a.request, &a.row_begin, &a.last_row, &a.length, &a.selects, &a.lead_begin}) {
      *items = carver.take<std::int32_t>(item_bytes_);
    }
    return a;
  }

  void point(Batch& batch, std::byte* memory, index_t rows, index_t leads) const {
    const Arrays<std::int32_t> at = arrays(memory);
    const auto items = static_cast<index_t>(items_.size());
    batch.items = items_;
    batch.num_rows = rows;
    batch.tokens = {at.tokens, rows};
    batch.item = {at.item, rows};
    batch.position = {at.position, rows};
    batch.request = {at.request, items};
    batch.row_begin = {at.row_begin, items + 1};
    batch.last_row = {at.last_row, items};
    batch.length = {at.length, items};
    batch.selects = {at.selects, items};
    batch.lead_row = {at.lead_row, leads};
    batch.lead_begin = {at.lead_begin, items + 1};
    batch.follow_row = {at.follow_row, rows};
  }

  Backend* backend_;
  Buffer device_;
  std::vector<std::byte> host_;
  index_t row_bytes_;
  index_t item_bytes_;
  std::vector<ScheduledItem> items_;
  Batch batch_;
};

}  // namespace spectx::detail
