// SPDX-License-Identifier: Apache-2.0
// A host that caught an exception in a step gives the step up.
#include <array>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/deferred_backend.hpp"
#include "support/pool_cases.hpp"
#include "support/row_loop.hpp"

using namespace spectx;
using namespace spectx::test;

TEST_CASE("a step that is given up leaves no trace") {
  const auto worker = make_backend({.two_memories = true});
  DeferredBackend backend(*worker);
  const std::int32_t resident = GENERATE(from_range(values<std::int32_t>({0, 1, 3}, {0, 1})));
  const index_t layers = GENERATE(from_range(values<index_t>({0, 1, 4, 6}, {0, 4})));
  const bool is_dense = GENERATE(false, true);
  CAPTURE(resident, layers, is_dense);
  RowLoop loop(backend, pool_shape(), pool_plan());
  const RequestId id = loop.open(120);
  loop.place(id, resident);
  loop.prefill(id, 37);
  for (int n = 0; n < 6; ++n) loop.step({loop.item(id, 1)}, n);
  loop.waits = false;
  const Buffer garbage(backend.memories().device, 4 * 2 * 6 * 4);
  backend.fill(garbage.data(), 0x42, garbage.bytes(), loop.stream);
  const auto rows_of = [&](index_t dim) {
    return split_heads(matrix_view(garbage.data(), DType::f32, 4, 2 * dim), 2, dim);
  };
  for (int n = 0; n < unless_slow(9, 3); ++n) {
    const Batch& batch = loop.pool.schedule(std::array{loop.item(id, 4, is_dense)}, loop.stream);
    loop.pipeline.begin_step(batch, loop.select(batch, n), loop.stream);
    for (index_t layer = 0; layer < layers; ++layer) {
      if (layer != 2) loop.pipeline.append(layer, rows_of(4), rows_of(6), loop.stream);
    }
    loop.pipeline.abandon_step(loop.stream);
    loop.pipeline.abandon_step(loop.stream);  // nothing has begun
    REQUIRE(loop.pool.length(id) == 43 + n);
    loop.step({loop.item(id, 1)}, n);
  }
  loop.step({loop.item(id, 4, true)});
  REQUIRE(loop.wrong_rows == 0);
}
