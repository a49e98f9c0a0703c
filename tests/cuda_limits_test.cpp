// SPDX-License-Identifier: Apache-2.0
// What the kernels lack is refused before anything is launched.
#include "catch.hpp"
#include "support/attend_case.hpp"
#include "support/cuda_device.hpp"

using namespace spectx;
using namespace spectx::test;

TEST_CASE("heads of more than 256 dims and budgets of more than 8,192 rows are refused") {
  const auto b = device();
  if (b == nullptr) return;
  const ScheduledItem item{.request = {0}, .first = 20, .rows = 1, .is_dense = true};
  const AttendCase wide({2, 1, 264, 264}, DType::f16, 1, 32, 3, DType::f16);
  REQUIRE_THROWS_AS(wide.run(*b, {{.item = item, .ids = {}, .is_offloaded = false}}), Unsupported);
  const AttendCase widest({2, 1, 256, 256}, DType::f16, 1, 32, 3, DType::f16);
  REQUIRE(widest.run(*b, {{.item = item, .ids = {}, .is_offloaded = false}}).size() == 2 * 256);

  const BatchData batch(*b, {{.request = {0}, .first = 20, .rows = 1, .selects = true}});
  Selection selection;
  selection.max_budget = 8193;
  const Stream stream = b->make_stream();
  REQUIRE_THROWS_AS(
      b->update_slots({.batch = batch.get(), .selection = selection, .pool = {}, .lists = {}},
                      stream),
      Unsupported);
}
