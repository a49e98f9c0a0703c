// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "batches.hpp"
#include "spectx/error.hpp"

namespace spectx::test {

/// Arguments of every operation that are right, for two requests whose items do not select: all in
/// memory of the backend, so that a test can spoil one thing and call.
class ArgumentCase {
 public:
  static constexpr index_t kRows = 2, kHeads = 2, kQueryHeads = 4, kDim = 8, kLength = 32;
  static constexpr index_t kBudget = 8, kSlots = 16;

  explicit ArgumentCase(Backend& b)
      : floats_(b, std::vector<float>(4096)),
        ints_(b, std::vector<std::int32_t>(4096)),
        outcomes_(b, std::vector<GuardOutcome>(2)),
        addresses_(b, std::vector<std::byte*>(64, reinterpret_cast<std::byte*>(floats_.data()))),
        batch_(b, {{.request = {0}, .first = 4, .rows = 1}, {.request = {1}, .rows = 1}}),
        batch(*batch_.get()) {
    kv.table = addresses_.data();
    kv.table_stride = 4;
    kv.page_rows = 8;
    kv.head_stride = 8 * 2 * kDim * 4;
    kv.row_stride = 2 * kDim * 4;
    kv.v_offset = kDim * 4;
    kv.dtype = DType::f32;
    kv.kv_heads = kHeads;
    kv.k_dim = kv.v_dim = kDim;

    pool.pages = pool.host_pages = addresses_.data();
    pool.resident_groups = ints_.data();
    pool.durable = pool.slot_of_token = pool.token_of_slot = pool.last_used = pool.clock = writes();
    pool.groups = 2;
    pool.page_columns = 4;
    pool.page_rows = 8;
    pool.group_layers = 1;
    pool.layers = 2;
    pool.kv_heads = kHeads;
    pool.k_dim = pool.v_dim = kDim;
    pool.slots = kSlots;
    pool.max_length = kLength;
    pool.row_bytes = 2 * kDim * 4;
    pool.k_bytes = kDim * 4;
    pool.strides = page_strides(PageOrder::heads, 8, kHeads, pool.k_bytes, pool.k_bytes);
    pool.dtype = DType::f32;
    pool.run = make_host_run(DType::f32, DType::f32, 2 * kDim, 1);

    lists = {writes(), writes(), writes(), writes(), writes(), kBudget};
    selection = {.ids = ints(),
                 .counts = ints(),
                 .coverage = {floats_.data(), 64},
                 .max_budget = kBudget,
                 .outcomes = outcomes_};
    rule = {.budget = kBudget, .sinks = 1, .recent_window = 2};
  }

  TensorView matrix(index_t rows, index_t cols, DType dtype = DType::f32) const {
    return matrix_view(floats_.data(), dtype, rows, cols);
  }
  TensorView heads(index_t rows, index_t heads, index_t dim, DType dtype = DType::f32) const {
    return split_heads(matrix(rows, heads * dim, dtype), heads, dim);
  }
  TensorView vector(index_t n, DType dtype = DType::f32) const {
    return vector_view(floats_.data(), dtype, n);
  }
  Array<std::int32_t> ints(index_t n = 64) const { return {writes(), n}; }
  Array<const float> frequencies(index_t n) const { return {floats_.data(), n}; }
  std::int32_t* writes() const { return ints_.data() + 64; }
  RowPlace place(RowPlace::Kind kind) const { return {kind, addresses_.data()}; }

 private:
  DeviceArray<float> floats_;
  DeviceArray<std::int32_t> ints_;
  DeviceArray<GuardOutcome> outcomes_;
  DeviceArray<std::byte*> addresses_;
  BatchData batch_;

 public:
  Batch batch;
  KVView kv;
  KVPoolView pool;
  StepLists lists;
  Selection selection;
  SelectionConfig rule;
};

/// What a call throws: its class and the word that its message begins with; empty: nothing.
inline std::string refusal(auto&& call) {
  const auto operation = [](const Error& error) {
    const std::string what = error.what();
    return what.substr(0, what.find(':'));
  };
  try {
    call();
  } catch (const InvalidArgument& error) {
    return "invalid " + operation(error);
  } catch (const Unsupported& error) {
    return "unsupported " + operation(error);
  }
  return {};
}

}  // namespace spectx::test
