// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <span>

#include "spectx/view.hpp"

namespace spectx {

/// What a host asks of a step for one request: the rows for `tokens` are added to it.
struct BatchItem {
  RequestId request;
  std::span<const std::int32_t> tokens;  // one: decode; more: a prompt chunk or drafts to verify
  bool is_dense = false;                 // attends to everything: prompt rows
};

/// The same, as KVPool::schedule placed it. Host data.
struct ScheduledItem {
  RequestId request;
  index_t first = 0;      // position of its first row = tokens cached before the step
  index_t rows = 0;       // tokens that it adds
  bool is_dense = false;  // as asked
  bool selects = false;   // reads the rows of a selection, not all
};

/// What of a batch a captured step is made for: it can be replayed for every batch of its shape.
struct StepShape {
  index_t items = 0, rows = 0, leads = 0;
  bool needs_selection = false;

  friend auto operator<=>(const StepShape&, const StepShape&) = default;
};

/// The rows of one step, made by KVPool::schedule and valid until the next one. The arrays are in
/// device memory and keep their addresses, so that a captured step sees the next batch.
struct Batch {
  std::span<const ScheduledItem> items;  // host
  index_t num_rows = 0;
  index_t max_rows_per_item = 0;
  bool needs_selection = false;          // some item selects
  Array<std::int32_t> tokens;            // [rows]; a device sampler may write the next step's here
  Array<const std::int32_t> item;        // [rows] its item
  Array<const std::int32_t> position;    // [rows] RoPE position = index of the row in its request
  Array<const std::int32_t> request;     // [items] row in the tables
  Array<const std::int32_t> row_begin;   // [items + 1] rows of item i
  Array<const std::int32_t> last_row;    // [items] the last row of item i: its logits predict
  Array<const std::int32_t> length;      // [items] cached tokens, this step's rows included
  Array<const std::int32_t> selects;     // [items] 0 or 1
  Array<const std::int32_t> lead_row;    // [leads] the first row of every item, and every row of
                                         // those that select: what a retrieval head reads
  Array<const std::int32_t> lead_begin;  // [items + 1] leads of item i
  Array<const std::int32_t> follow_row;  // [rows] row + 1 where that is the same item, else -1

  StepShape shape() const noexcept {
    return {static_cast<index_t>(items.size()), num_rows, lead_row.size, needs_selection};
  }
};

}  // namespace spectx
