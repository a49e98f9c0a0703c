// SPDX-License-Identifier: Apache-2.0
#include "spectx/paper_memory_model.hpp"

#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "catch.hpp"
#include "spectx/memory_planner.hpp"
#include "support/planner_cases.hpp"

using spectx::index_t;
using spectx::InvalidArgument;
using spectx::PaperMemoryModel;

namespace {

/// Llama-3.1-8B in FP16 with a draft of 60 MB.
PaperMemoryModel llama(index_t memory_gib) {
  return {.memory_bytes = memory_gib << 30,
          .model_bytes = 16'060'522'496,
          .draft_bytes = 60'000'000,
          .layers = 32,
          .kv_heads = 8,
          .head_dim = 128,
          .group_size = 4,
          .budget = 2048};
}

std::vector<index_t> thresholds(const PaperMemoryModel& model, index_t requests, bool corrected) {
  std::vector<index_t> out(static_cast<std::size_t>(model.layers) + 1);
  model.check(requests, 1 << 20);
  model.thresholds(requests, corrected, out);
  return out;
}

struct Case {
  index_t memory_gib;
  index_t requests;
  bool is_corrected;
  std::array<index_t, 7> lengths;  // S_0, S_1, S_2, S_3, S_16, S_31, S_32
};

constexpr std::array<Case, 6> kCases{{
    {80, 32, false, {13391, 13748, 14127, 14527, 23203, 79933, 95817}},
    {80, 32, true, {13391, 13706, 14039, 14392, 22033, 71997, 85987}},
    {80, 4, false, {107129, 110090, 113221, 116536, 188361, 657985, 789480}},
    {80, 4, true, {107129, 110048, 113133, 116401, 187191, 650049, 779649}},
    {24, 4, false, {7939, 8146, 8364, 8595, 13598, 46316, 55477}},
    {24, 4, true, {7939, 8103, 8276, 8459, 12428, 38380, 45646}},
}};

}  // namespace

TEST_CASE("thresholds of the paper's models") {
  constexpr std::array<std::size_t, 7> kAt{0, 1, 2, 3, 16, 31, 32};
  for (const Case& c : kCases) {
    CAPTURE(c.memory_gib, c.requests, c.is_corrected);
    const auto s = thresholds(llama(c.memory_gib), c.requests, c.is_corrected);
    for (std::size_t i = 0; i < kAt.size(); ++i) {
      CAPTURE(kAt[i]);
      CHECK(s[kAt[i]] == c.lengths[i]);
    }
    for (std::size_t i = 1; i < s.size(); ++i) CHECK(s[i] > s[i - 1]);
  }
}

TEST_CASE("corrected thresholds are where equation 7 fills the memory; printed ones over-commit") {
  for (const Case& c : kCases) {
    const PaperMemoryModel model = llama(c.memory_gib);
    const auto s = thresholds(model, c.requests, c.is_corrected);
    for (index_t i = 0; i <= model.layers; ++i) {
      const index_t length = s[static_cast<std::size_t>(i)];
      CAPTURE(c.memory_gib, c.requests, c.is_corrected, i, length);
      const bool fits = model.part_bytes(c.requests, length, i) <= model.memory_bytes;
      CHECK(fits == (c.is_corrected || i == 0));
      CHECK(model.part_bytes(c.requests, length + 1, i) > model.memory_bytes);
      if (c.is_corrected) CHECK(model.device_layers(c.requests, length) == model.layers - i);
    }
    CHECK(model.all_bytes(c.requests, s[0]) == model.part_bytes(c.requests, s[0], 0));
  }
}

TEST_CASE("equation 6 agrees with double precision") {
  const PaperMemoryModel model = llama(80);
  const double expected =
      1.3 * (16'060'522'496.0 + 60e6) + 4.0 * 32 * (32 + 1 + 4) * 10'000.0 * 8 * 128;
  CHECK(std::abs(static_cast<double>(model.all_bytes(32, 10'000)) - expected) <= 1);
}

TEST_CASE("the run-time algorithm offloads one layer at each threshold, and never more") {
  const PaperMemoryModel model = llama(80);
  const auto s = thresholds(model, 32, true);
  CHECK(PaperMemoryModel::layers_on_host(s, 0) == 0);
  for (index_t i = 0; i < model.layers; ++i) {
    const index_t at = s[static_cast<std::size_t>(i)];
    CAPTURE(i);
    CHECK(PaperMemoryModel::layers_on_host(s, at - 1) == i);
    CHECK(PaperMemoryModel::layers_on_host(s, at) == i + 1);
  }
  CHECK(PaperMemoryModel::layers_on_host(s, 1'000'000'000) == model.layers);

  // Step by step, as the listing has it.
  index_t on_host = 0;
  for (index_t length = 13'000; length < 90'000; ++length) {
    while (on_host < model.layers && length >= s[static_cast<std::size_t>(on_host)]) ++on_host;
    REQUIRE(PaperMemoryModel::layers_on_host(s, length) == on_host);
  }
}

TEST_CASE("thresholds against double precision on random shapes") {
  std::mt19937 random(3);
  const auto pick = [&](index_t low, index_t high) {
    return low + static_cast<index_t>(random()) % (high - low + 1);
  };
  for (int n = 0; n < 500; ++n) {
    PaperMemoryModel m{.memory_bytes = pick(1, 100) << 30,
                       .model_bytes = pick(0, 20) << 30,
                       .draft_bytes = pick(0, 1000) << 20,
                       .layers = pick(1, 90),
                       .kv_heads = pick(1, 64),
                       .head_dim = 2 * pick(16, 128),
                       .group_size = pick(1, 16),
                       .budget = pick(64, 8192)};
    const index_t requests = pick(1, 64);
    CAPTURE(n, requests, m.layers, m.kv_heads, m.head_dim);
    const auto s = thresholds(m, requests, true);
    const double token = 4.0 * static_cast<double>(requests * m.kv_heads * m.head_dim);
    for (index_t i = 0; i <= m.layers; ++i) {
      const double free = static_cast<double>(m.memory_bytes) -
                          1.3 * static_cast<double>(m.model_bytes + m.draft_bytes) -
                          token * static_cast<double>(i * m.budget);
      const double length = free / (token * static_cast<double>(m.layers + 1 + m.group_size - i));
      CHECK(static_cast<double>(s[static_cast<std::size_t>(i)]) <= std::max(0.0, length + 1e-3));
      CHECK(static_cast<double>(s[static_cast<std::size_t>(i)]) >= std::max(0.0, length - 1.001));
    }
  }
}

TEST_CASE("models that do not fit in 64 bits are refused") {
  constexpr index_t kHuge = index_t{1} << 62;
  for (index_t PaperMemoryModel::*const field :
       {&PaperMemoryModel::memory_bytes, &PaperMemoryModel::layers, &PaperMemoryModel::kv_heads,
        &PaperMemoryModel::head_dim, &PaperMemoryModel::group_size, &PaperMemoryModel::budget,
        &PaperMemoryModel::element_bytes}) {
    for (const index_t bad : {index_t{0}, index_t{-1}, kHuge, -kHuge}) {
      PaperMemoryModel model = llama(80);
      model.*field = bad;
      CHECK_THROWS_AS(model.check(4, 8192), InvalidArgument);
    }
  }
  CHECK_THROWS_AS(llama(80).check(0, 8192), InvalidArgument);
  CHECK_THROWS_AS(llama(80).check(kHuge, 8192), InvalidArgument);
  CHECK_THROWS_AS(llama(80).check(4, -1), InvalidArgument);
  CHECK_THROWS_AS(llama(80).check(4, kHuge), InvalidArgument);
  CHECK_NOTHROW(llama(80).check(4, 8192));
}

TEST_CASE("the paper's models place by its run-time algorithm, rounded up to groups, never back") {
  for (const spectx::PlannerModel model :
       {spectx::PlannerModel::paper, spectx::PlannerModel::paper_corrected}) {
    spectx::PlannerConfig config = spectx::test::llama_config();
    config.model = model;
    config.max_requests = 16;
    config.host_bytes = index_t{1} << 40;
    spectx::MemoryPlanner planner(spectx::test::llama_shape(), config);
    REQUIRE(planner.pool_plan().group_layers == 4);
    const auto s = planner.thresholds(16);
    REQUIRE(s.size() == 33);
    CHECK(planner.paper_model().layers == 32);

    std::vector<spectx::RequestNeed> needs;
    for (std::int32_t i = 0; i < 16; ++i) needs.push_back(spectx::test::need(i, 0, 34'816, 8));
    std::int32_t before = 8;
    for (const index_t length : {s[0] - 1, s[0], s[0] + 1, s[3], s[4], s[5] - 1, s[5]}) {
      for (spectx::RequestNeed& n : needs) n.length = length;
      const std::vector<index_t> at(s.begin(), s.end());
      const index_t layers = PaperMemoryModel::layers_on_host(at, length);
      const auto expected = static_cast<std::int32_t>(8 - spectx::ceil_div(layers, 4));
      const spectx::Placement placement = planner.place(needs);
      for (std::size_t i = 0; i < needs.size(); ++i) {
        CHECK(placement.resident_groups[i] <= expected);
        needs[i].resident_groups = placement.resident_groups[i];
      }
      CHECK(needs.back().resident_groups <= before);
      before = needs.back().resident_groups;
    }
    needs.resize(1);
    needs[0].length = 100;
    CHECK(planner.place(needs).resident_groups[0] == needs[0].resident_groups);
  }
}
