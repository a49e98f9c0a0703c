// SPDX-License-Identifier: Apache-2.0
#include "spectx/memory_planner.hpp"

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/planner_cases.hpp"

using namespace spectx;

namespace {

index_t device_total(const ModelShape& shape, const PlannerConfig& config) {
  return MemoryPlanner(shape, config).predict({}).device_total();
}

}  // namespace

TEST_CASE("a pool takes the device's memory to the last page and not a byte more") {
  for (const index_t kv_heads : {1, 2, 8, 32}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      ModelShape shape = test::llama_shape(kv_heads);
      shape.dtype = dtype;
      PlannerConfig config = test::llama_config();
      config.force_host_tier = true;
      config.max_requests = 512;
      config.host_bytes = index_t{4} << 40;
      MemoryPlanner planner(shape, config);
      const MemoryUse use = planner.predict({});
      CAPTURE(kv_heads, dtype_name(dtype));
      CHECK(use.device_total() <= config.device_bytes);
      CHECK(use.device_total() + planner.layout().page_bytes > config.device_bytes);
      CHECK(use.host_cap <= config.host_bytes);
      const HeadLayout head(shape, planner.pool_plan(), config.head, config.compute_dtype);
      CHECK(use.device_own() == planner.layout().arena_bytes + planner.layout().staging_bytes +
                                    planner.layout().table_bytes() +
                                    planner.layout().step_list_bytes() + head.bytes());
    }
  }
}

TEST_CASE("a pool is never larger than its requests can use") {
  PlannerConfig config = test::planner_config();
  config.device_bytes = index_t{1} << 40;
  config.host_bytes = index_t{1} << 40;
  const ModelShape shape = test::planner_shape();
  MemoryPlanner planner(shape, config);
  CHECK_FALSE(planner.pool_plan().has_host_tier());  // everything fits
  CHECK(planner.pool_plan().arena_pages ==
        config.max_requests * (planner.layout().groups * 16 + planner.layout().key_pages));
  config.force_host_tier = true;
  MemoryPlanner forced(shape, config);
  CHECK(forced.pool_plan().has_host_tier());
  CHECK(forced.pool_plan().host_pages == config.max_requests * forced.layout().groups * 16);
}

TEST_CASE("a budget beyond what slots serve is refused where there would be a host tier") {
  PlannerConfig config = test::llama_config();
  config.force_host_tier = true;
  for (index_t SelectionConfig::*const field :
       {&SelectionConfig::budget, &SelectionConfig::max_budget}) {
    config.selection = {};
    config.selection.*field = kMostSlottedBudget;
    CHECK_NOTHROW(MemoryPlanner(test::llama_shape(), config));
    config.selection.*field = kMostSlottedBudget + 1;
    CHECK_THROWS_AS(MemoryPlanner(test::llama_shape(), config), InvalidArgument);
  }
  config.force_host_tier = false;
  config.has_one_memory = true;
  config.max_requests = 2;
  CHECK_NOTHROW(MemoryPlanner(test::llama_shape(), config));
}

TEST_CASE("sliding layers belong to no group") {
  ModelShape shape = test::llama_shape();
  shape.attention.assign(32, AttentionKind::full);
  for (std::size_t l = 0; l < 32; l += 2) shape.attention[l] = AttentionKind::sliding;
  PlannerConfig config = test::llama_config();
  config.max_requests = 64;
  MemoryPlanner half(shape, config);
  ModelShape short_shape = test::llama_shape();
  short_shape.layers = 16;
  MemoryPlanner same(short_shape, config);
  CHECK(half.layout().groups == 4);
  CHECK(half.pool_plan().arena_pages == same.pool_plan().arena_pages);
  const auto a = half.thresholds(64);
  const auto b = same.thresholds(64);
  CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
}

TEST_CASE("one memory: every layer a group, nothing on the host, nothing staged") {
  PlannerConfig config = test::llama_config();
  config.has_one_memory = true;
  config.max_requests = 4;
  MemoryPlanner planner(test::llama_shape(), config);
  const PoolPlan& plan = planner.pool_plan();
  CHECK(plan.group_layers == 1);
  CHECK(plan.slots == 0);
  CHECK(plan.host_pages == 0);
  CHECK(plan.staging_pages == 0);
  const std::vector<RequestNeed> needs{{.request = {0},
                                        .length = 30'000,
                                        .final_length = 34'816,
                                        .resident_groups = 32,
                                        .moving_to = -1}};
  CHECK(planner.place(needs).resident_groups[0] == 32);
  CHECK(planner.thresholds(4).size() == 1);
}

TEST_CASE("more memory never takes less; the figure is exact to a page") {
  PlannerConfig config = test::llama_config();
  index_t before = 0;
  for (index_t gib = 20; gib <= 200; gib += 5) {
    config.device_bytes = gib << 30;
    CAPTURE(gib);
    MemoryPlanner planner(test::llama_shape(), config);
    const index_t total = device_total(test::llama_shape(), config);
    CHECK(total <= config.device_bytes);
    if (planner.pool_plan().has_host_tier()) CHECK(total > before);
    before = total;
  }
}

TEST_CASE("thresholds are the last lengths that fit, and rise where a group's leaving helps") {
  const ModelShape shape = test::planner_shape();
  MemoryPlanner planner(shape, test::planner_config(shape, 88, 150));
  for (const index_t requests : {1, 2, 3, 4}) {
    const auto s = planner.thresholds(requests);
    REQUIRE(s.size() == 4);
    for (index_t i = 0; i <= 3; ++i) {
      const auto fits = [&](index_t length) {  // two pages wait for a move
        const index_t pages = (length + 15) / 16;
        return requests * ((3 - i) * pages + i * 2 + 1) <= 88 - 2 && requests * i * pages <= 150;
      };
      const index_t at = s[static_cast<std::size_t>(i)];
      CAPTURE(requests, i, at);
      CHECK((at == 0 || fits(at)));
      CHECK((at == 256 || !fits(at + 1)));
    }
  }
}

TEST_CASE("a configuration for a backend has what only that can say") {
  const ModelShape shape = test::llama_shape();
  PlannerConfig config = test::llama_config();
  config.compute_dtype = DType::f16;
  config.scratch_bytes = 1;
  for (const bool two_memories : {false, true}) {
    const auto backend = test::make_backend({.two_memories = two_memories});
    const PlannerConfig own = for_backend(*backend, shape, DType::bf16, config);
    REQUIRE(own.has_one_memory == backend->has_one_memory());
    REQUIRE(own.compute_dtype == backend->compute_dtype(DType::bf16));
    REQUIRE(own.scratch_bytes == backend->scratch_bytes(scratch_shape(shape, config)));
    REQUIRE(own.device_bytes == config.device_bytes);
  }
}
