// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <vector>

#include "device_data.hpp"
#include "spectx/batch.hpp"

namespace spectx::test {

/// A Batch in device memory, made from its items alone: what a KVPool would schedule.
class BatchData {
 public:
  BatchData(Backend& backend, const std::vector<ScheduledItem>& items)
      : items_(items), fields_(items), numbers_(backend, fields_.joined()) {
    batch_.items = items_;
    batch_.num_rows = static_cast<index_t>(fields_.item.size());
    for (const ScheduledItem& item : items_) {
      batch_.max_rows_per_item = std::max(batch_.max_rows_per_item, item.rows);
      batch_.needs_selection |= item.selects;
    }
    std::int32_t* from = numbers_.data();
    const auto take = [&from](auto& array, const Ints& field) {
      array = {from, static_cast<index_t>(field.size())};
      from += array.size + kGap;
    };
    take(batch_.tokens, fields_.tokens);
    take(batch_.item, fields_.item);
    take(batch_.position, fields_.position);
    take(batch_.request, fields_.request);
    take(batch_.row_begin, fields_.row_begin);
    take(batch_.last_row, fields_.last_row);
    take(batch_.length, fields_.length);
    take(batch_.selects, fields_.selects);
    take(batch_.lead_row, fields_.lead_row);
    take(batch_.lead_begin, fields_.lead_begin);
    take(batch_.follow_row, fields_.follow_row);
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
  static constexpr index_t kGap = 4;  // numbers between two arrays, which are no index of anything

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
    Ints joined() const {
      Ints numbers;
      for (const Ints* field : {&tokens, &item, &position, &request, &row_begin, &last_row, &length,
                                &selects, &lead_row, &lead_begin, &follow_row}) {
        numbers.insert(numbers.end(), field->begin(), field->end());
        numbers.insert(numbers.end(), kGap, std::numeric_limits<std::int32_t>::min());
      }
      return numbers;
    }
    Ints tokens, item, position, request, row_begin, last_row, length, selects, lead_row,
        lead_begin, follow_row;
  };

  std::vector<ScheduledItem> items_;
  Fields fields_;
  DeviceArray<std::int32_t> numbers_;  // of all fields
  Batch batch_;
};

}  // namespace spectx::test
