// SPDX-License-Identifier: Apache-2.0
// What the pages, groups and slots of a planner's pool are like.
#include "catch.hpp"
#include "spectx/memory_planner.hpp"
#include "support/planner_cases.hpp"

using namespace spectx;

TEST_CASE("groups are the layers whose rows make 2 KiB") {
  const auto group_layers = [](index_t dim, DType dtype, index_t layers,
                               std::optional<DType> host_dtype = {}) {
    ModelShape shape = test::llama_shape();
    shape.k_dim = shape.v_dim = dim;
    shape.dtype = dtype;
    shape.layers = layers;
    PlannerConfig config = test::llama_config();
    config.force_host_tier = true;
    config.host_dtype = host_dtype;
    return MemoryPlanner(shape, config).pool_plan().group_layers;
  };
  CHECK(group_layers(128, DType::bf16, 32) == 4);
  CHECK(group_layers(64, DType::bf16, 30) == 8);
  CHECK(group_layers(128, DType::f32, 32) == 2);
  CHECK(group_layers(256, DType::f32, 32) == 1);
  CHECK(group_layers(64, DType::bf16, 3) == 3);
  CHECK(group_layers(128, DType::bf16, 32, DType::bf16) == 4);
  for (const DType host : {DType::f8_e4m3, DType::i8}) {
    CHECK(group_layers(128, DType::bf16, 32, host) == 8);
    CHECK(group_layers(128, DType::f32, 32, host) == 8);
    CHECK(group_layers(64, DType::bf16, 32, host) == 16);
  }
  CHECK_THROWS_AS(group_layers(128, DType::bf16, 32, DType::f16), InvalidArgument);
  PlannerConfig config = test::llama_config();
  config.group_layers = 1;
  CHECK(MemoryPlanner(test::llama_shape(), config).layout().groups == 32);
}

TEST_CASE("K and V apart in a page are of one size") {
  PlannerConfig config = test::llama_config();
  config.page_order = PageOrder::split_rows;
  const PoolLayout layout = MemoryPlanner(test::llama_shape(), config).layout();
  CHECK(layout.strides.row == 8 * 256);
  CHECK(layout.strides.head == 256);
  CHECK(layout.strides.v == 64 * 8 * 256);
  ModelShape shape = test::llama_shape();
  shape.v_dim = 64;
  CHECK_THROWS_AS(MemoryPlanner(shape, config), InvalidArgument);
}

TEST_CASE("a host tier of a smaller type holds a run of numbers and scales") {
  PlannerConfig config = test::llama_config();
  config.force_host_tier = true;
  config.host_bytes = index_t{32} << 30;
  config.host_dtype = DType::f8_e4m3;
  const MemoryPlanner planner(test::llama_shape(), config);
  const PoolLayout& layout = planner.layout();
  // 8 layers of 256 numbers, and of two scales of 4 bytes each.
  CHECK(layout.run.bytes == 8 * 256 + 8 * 2 * 4);
  CHECK(layout.host_page_bytes == 64 * 8 * layout.run.bytes);
  CHECK(layout.page_bytes == 64 * 8 * 8 * 512);
  const MemoryUse use = planner.predict({});
  CHECK(use.host_cap == planner.pool_plan().host_pages * layout.host_page_bytes);
  CHECK(use.host_cap <= config.host_bytes);
  config.host_dtype = {};
  const MemoryPlanner lossless(test::llama_shape(), config);
  const auto most = [](const MemoryPlanner& p) {
    return p.pool_plan().host_pages * p.pool_plan().group_layers;
  };
  CHECK(most(planner) > 19 * most(lossless) / 10);
}

TEST_CASE("slots are whole pages of the hot buffer") {
  PlannerConfig config = test::llama_config();
  config.max_requests = 64;
  for (const double hot : {1.0, 1.25, 2.0, 3.01}) {
    config.hot_buffer = hot;
    const PoolPlan plan = MemoryPlanner(test::llama_shape(), config).pool_plan();
    CHECK(plan.slots % plan.page_rows == 0);
    CHECK(static_cast<double>(plan.slots) >= hot * 2048);
    CHECK(static_cast<double>(plan.slots) < hot * 2048 + 64);
  }
}
