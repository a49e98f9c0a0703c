// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "device_data.hpp"
#include "spectx/batch.hpp"

namespace spectx::test {

/// A Batch in device memory, made from its items alone: what a KVPool would schedule.
class BatchData {
 public:
  BatchData(Backend& backend, const std::vector<ScheduledItem>& items)
      : items_(items), fields_(items), arrays_(backend, fields_) {
    batch_.items = items_;
    batch_.num_rows = static_cast<index_t>(fields_.item.size());
    for (const ScheduledItem& item : items_) {
      batch_.max_rows_per_item = std::max(batch_.max_rows_per_item, item.rows);
      batch_.needs_selection |= item.selects;
    }
    batch_.tokens = arrays_.tokens;
    batch_.item = arrays_.item;
    batch_.position = arrays_.position;
    batch_.request = arrays_.request;
    batch_.row_begin = arrays_.row_begin;
    batch_.last_row = arrays_.last_row;
    batch_.length = arrays_.length;
    batch_.selects = arrays_.selects;
    batch_.lead_row = arrays_.lead_row;
    batch_.lead_begin = arrays_.lead_begin;
    batch_.follow_row = arrays_.follow_row;
  }
  BatchData(const BatchData&) = delete;
  BatchData& operator=(const BatchData&) = delete;

  const Batch* get() const noexcept { return &batch_; }
  const std::vector<ScheduledItem>& items() const noexcept { return items_; }
  index_t num_leads() const noexcept { return static_cast<index_t>(fields_.lead_row.size()); }
  /// Host copies.
  const std::vector<std::int32_t>& lead_row() const noexcept { return fields_.lead_row; }
  const std::vector<std::int32_t>& position() const noexcept { return fields_.position; }

 private:
  using Ints = std::vector<std::int32_t>;

  struct Fields {
    explicit Fields(const std::vector<ScheduledItem>& items) {
      row_begin.push_back(0);
      lead_begin.push_back(0);
      for (const ScheduledItem& s : items) {
        for (index_t n = 0; n < s.rows; ++n) add_row(s, n);
        request.push_back(s.request.value);
        last_row.push_back(static_cast<std::int32_t>(item.size()) - 1);
        length.push_back(static_cast<std::int32_t>(s.first + s.rows));
        selects.push_back(s.selects ? 1 : 0);
        row_begin.push_back(static_cast<std::int32_t>(item.size()));
        lead_begin.push_back(static_cast<std::int32_t>(lead_row.size()));
      }
    }
    void add_row(const ScheduledItem& s, index_t n) {
      const auto row = static_cast<std::int32_t>(item.size());
      tokens.push_back(row);
      item.push_back(static_cast<std::int32_t>(request.size()));
      position.push_back(static_cast<std::int32_t>(s.first + n));
      follow_row.push_back(n + 1 < s.rows ? row + 1 : -1);
      if (n == 0 || s.selects) lead_row.push_back(row);
    }
    Ints tokens, item, position, request, row_begin, last_row, length, selects, lead_row,
        lead_begin, follow_row;
  };
  struct Arrays {
    Arrays(Backend& b, const Fields& f)
        : tokens(b, f.tokens),
          item(b, f.item),
          position(b, f.position),
          request(b, f.request),
          row_begin(b, f.row_begin),
          last_row(b, f.last_row),
          length(b, f.length),
          selects(b, f.selects),
          lead_row(b, f.lead_row),
          lead_begin(b, f.lead_begin),
          follow_row(b, f.follow_row) {}
    DeviceArray<std::int32_t> tokens, item, position, request, row_begin, last_row, length, selects,
        lead_row, lead_begin, follow_row;
  };

  std::vector<ScheduledItem> items_;
  Fields fields_;
  Arrays arrays_;
  Batch batch_;
};

}  // namespace spectx::test
