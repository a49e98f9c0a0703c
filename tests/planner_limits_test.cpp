// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <vector>

#include "catch.hpp"
#include "support/planner_cases.hpp"

using namespace spectx;
using test::llama_config;
using test::llama_shape;
using test::need;

namespace {

constexpr index_t kHuge = index_t{1} << 62;
constexpr index_t kBad[] = {-1, -kHuge, kHuge, std::numeric_limits<index_t>::max(),
                            std::numeric_limits<index_t>::min()};

/// Three groups; pages of 16 tokens, slots of two.
MemoryPlanner planner_for(index_t arena, index_t host) {
  return {test::planner_shape(), test::planner_config(test::planner_shape(), arena, host)};
}

}  // namespace

TEST_CASE("too small a memory is named with what it lacks") {
  PlannerConfig config = llama_config();
  config.max_requests = 1;
  const auto tier_that_lacks = [&] {
    try {
      MemoryPlanner planner(llama_shape(), config);
    } catch (const OutOfMemory& error) {
      CHECK(error.bytes_asked() > error.bytes_free());
      CHECK(error.bytes_free() >= 0);
      return tier_name(error.tier())[0];
    }
    return '-';
  };
  CHECK(tier_that_lacks() == '-');
  config.device_bytes = config.model_bytes + (index_t{3} << 30);
  CHECK(tier_that_lacks() == '-');
  config.host_bytes = index_t{1} << 30;
  CHECK(tier_that_lacks() == 'h');
  config.host_bytes = 0;
  CHECK(tier_that_lacks() == 'd');
  config.host_bytes = index_t{112} << 30;
  config.device_bytes = config.model_bytes + (index_t{1} << 28);
  CHECK(tier_that_lacks() == 'd');
  config.device_bytes = config.model_bytes / 2;
  CHECK(tier_that_lacks() == 'd');
  config = llama_config();
  config.has_one_memory = true;
  config.device_bytes = config.model_bytes + (index_t{2} << 30);
  CHECK(tier_that_lacks() == 'd');
  config = llama_config();
  config.lent_bytes = index_t{24} << 30;
  CHECK(tier_that_lacks() == '-');
  config.lent_bytes = index_t{60} << 30;  // too little is left for slots: no host tier
  CHECK(tier_that_lacks() == '-');
  config.force_host_tier = true;
  CHECK(tier_that_lacks() == 'd');
  config.force_host_tier = false;
  config.lent_bytes = 1000;  // not one page
  CHECK(tier_that_lacks() == 'l');
  config.host_bytes = 0;
  config.lent_bytes = index_t{1} << 30;
  CHECK(tier_that_lacks() == 'l');
}

TEST_CASE("hostile configurations give an error, not a wrong size") {
  for (index_t PlannerConfig::*const field :
       {&PlannerConfig::device_bytes, &PlannerConfig::host_bytes, &PlannerConfig::model_bytes,
        &PlannerConfig::head_weight_bytes, &PlannerConfig::scratch_bytes,
        &PlannerConfig::lent_bytes, &PlannerConfig::group_layers, &PlannerConfig::max_requests,
        &PlannerConfig::max_length, &PlannerConfig::max_step_rows, &PlannerConfig::page_rows,
        &PlannerConfig::write_batch}) {
    for (const index_t bad : kBad) {
      PlannerConfig config = llama_config();
      config.*field = bad;
      CHECK_THROWS_AS(MemoryPlanner(llama_shape(), config), InvalidArgument);
    }
  }
}

TEST_CASE("zero is refused where nothing could be done with it") {
  for (index_t PlannerConfig::*const field :
       {&PlannerConfig::device_bytes, &PlannerConfig::max_requests, &PlannerConfig::max_length,
        &PlannerConfig::max_step_rows, &PlannerConfig::page_rows, &PlannerConfig::write_batch}) {
    PlannerConfig config = llama_config();
    config.*field = 0;
    CHECK_THROWS_AS(MemoryPlanner(llama_shape(), config), InvalidArgument);
  }
}

TEST_CASE("hostile shapes, heads and selections give an error") {
  for (index_t ModelShape::*const field :
       {&ModelShape::layers, &ModelShape::query_heads, &ModelShape::kv_heads, &ModelShape::k_dim,
        &ModelShape::v_dim, &ModelShape::hidden}) {
    for (const index_t bad : kBad) {
      ModelShape shape = llama_shape();
      shape.*field = bad;
      CHECK_THROWS_AS(MemoryPlanner(shape, llama_config()), InvalidArgument);
    }
  }
  for (index_t HeadShape::*const field :
       {&HeadShape::query_heads, &HeadShape::kv_heads, &HeadShape::k_dim, &HeadShape::hidden,
        &HeadShape::normed_features}) {
    for (const index_t bad : kBad) {
      PlannerConfig config = llama_config();
      config.head.*field = bad;
      CHECK_THROWS_AS(MemoryPlanner(llama_shape(), config), InvalidArgument);
    }
  }
  for (index_t SelectionConfig::*const field :
       {&SelectionConfig::budget, &SelectionConfig::sinks, &SelectionConfig::recent_window,
        &SelectionConfig::max_budget}) {
    for (const index_t bad : kBad) {
      if (bad == 0 && field == &SelectionConfig::max_budget) continue;  // the budget
      PlannerConfig config = llama_config();
      config.selection.*field = bad;
      CHECK_THROWS_AS(MemoryPlanner(llama_shape(), config), InvalidArgument);
    }
  }
  ModelShape mla = llama_shape();
  mla.attention.assign(32, AttentionKind::mla);
  CHECK_THROWS_AS(MemoryPlanner(mla, llama_config()), Unsupported);
}

TEST_CASE("hot buffers below the budget or beyond reason are refused") {
  for (const double bad : {0.0, 0.99, -1.0, 1e300, std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN()}) {
    PlannerConfig config = llama_config();
    config.hot_buffer = bad;
    CHECK_THROWS_AS(MemoryPlanner(llama_shape(), config), InvalidArgument);
  }
}

TEST_CASE("the largest values that pass still multiply inside 64 bits") {
  PlannerConfig config = llama_config();
  config.device_bytes = config.host_bytes = index_t{1} << 60;
  config.max_length = std::numeric_limits<std::int32_t>::max();
  for (config.max_requests = 1; config.max_requests <= 1 << 20; config.max_requests *= 2) {
    try {
      MemoryPlanner planner(llama_shape(), config);
      CHECK(planner.predict({}).device_total() <= config.device_bytes);
      CHECK(planner.admit({}, config.max_length) == Admission::now);
    } catch (const InvalidArgument&) {
      CHECK(config.max_requests > 64);
    }
  }
}

TEST_CASE("needs that the pool cannot have are refused") {
  MemoryPlanner planner(llama_shape(), llama_config());
  const auto groups = planner.layout().groups;
  using test::need;
  for (const RequestNeed& bad :
       {need(0, -1, 10, 0), need(0, 11, 10, 0), need(0, 0, 34'817, 0), need(0, 0, 10, -1),
        need(0, 0, 10, groups + 1), need(0, kHuge, kHuge, 0)}) {
    const std::vector<RequestNeed> needs{bad};
    CHECK_THROWS_AS(planner.place(needs), InvalidArgument);
    CHECK_THROWS_AS(planner.admit(needs, 10), InvalidArgument);
    CHECK_THROWS_AS(planner.predict(needs), InvalidArgument);
  }
  const std::vector<RequestNeed> too_many(33, need(0, 1, 1, groups));
  CHECK_THROWS_AS(planner.place(too_many), InvalidArgument);
  CHECK_THROWS_AS(planner.admit({}, 0), InvalidArgument);
  CHECK_THROWS_AS(planner.thresholds(0), InvalidArgument);
  CHECK_THROWS_AS(planner.thresholds(33), InvalidArgument);
  CHECK(planner.admit({}, kHuge) == Admission::never);
}

TEST_CASE("parked requests hold head keys and host pages only") {
  MemoryPlanner planner = planner_for(28, 60);
  std::vector<RequestNeed> needs{need(0, 200, 256, 0)};
  needs[0].is_parked = true;
  const MemoryUse use = planner.predict(needs);
  const index_t page = planner.layout().page_bytes;
  CHECK(use.resident_rows + use.slots == 0);
  CHECK(use.head_keys == page);
  CHECK(use.host_rows == 3 * 13 * page);
  CHECK(planner.place(needs).resident_groups[0] == 0);
  CHECK(planner.admit(needs, 32) == Admission::now);
  CHECK(planner.admit(needs, 256) == Admission::later);  // its host pages are taken
  CHECK(planner.admit({}, 256) == Admission::now);
}

TEST_CASE("admission: now, later, never, and the table's rows") {
  MemoryPlanner planner = planner_for(16, 60);
  CHECK(planner.admit({}, 257) == Admission::never);
  CHECK(planner.admit({}, 256) == Admission::now);
  CHECK(planner.admit(std::vector{need(0, 10, 256, 0)}, 256) == Admission::later);
  const std::vector<RequestNeed> full(4, need(0, 1, 1, 3));
  CHECK(planner.admit(full, 1) == Admission::later);
}
