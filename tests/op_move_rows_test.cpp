// SPDX-License-Identifier: Apache-2.0
#include <optional>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/pool_data.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

using Kind = RowPlace::Kind;

constexpr index_t kRequest = 1;

/// Every other token of each head has a slot, in random order.
void fill_slots(PoolData& pool) {
  Random random(5);
  for (index_t head = 0; head < pool.s.kv_heads; ++head) {
    const std::vector<std::int32_t> slots = random.permutation(pool.s.slots);
    for (index_t i = 0; i < pool.s.slots; ++i) pool.put(kRequest, head, 2 * i + head, slots[at(i)]);
  }
}

/// Offset of a token's row in its tier; none: it has no slot.
std::optional<std::size_t> find(const PoolData& pool, Kind kind, index_t layer, index_t head,
                                index_t token) {
  if (kind == Kind::host) return pool.host_row(kRequest, layer, head, token);
  const bool in_slots = kind == Kind::slots;
  const index_t n = in_slots ? pool.slot_of_token[pool.token_entry(kRequest, head, token)] : token;
  if (n < 0) return std::nullopt;
  return pool.device_row(in_slots, kRequest, layer, head, n);
}

void move_by_definition(PoolData& pool, index_t group, Kind from, Kind to, index_t first,
                        index_t last) {
  const PoolShape& s = pool.s;
  const index_t end = std::min((group + 1) * s.group_layers, s.layers);
  for (index_t layer = group * s.group_layers; layer < end; ++layer) {
    for (index_t head = 0; head < s.kv_heads; ++head) {
      for (index_t token = first; token < last; ++token) {
        const auto source = find(pool, from, layer, head, token);
        const auto target = find(pool, to, layer, head, token);
        if (!source || !target) continue;
        if (from == Kind::host) {
          pool.copy_to_device(*source, *target, layer);
        } else if (to == Kind::host) {
          pool.copy_to_host(*source, *target, layer);
        } else {
          pool.copy_on_device(*source, *target);
        }
      }
    }
  }
}

RowPlace place(const PoolData& pool, Kind kind, index_t group) {
  if (kind == Kind::host) return {kind, pool.view().host_pages_of(kRequest, group)};
  return {kind, kind == Kind::tokens ? pool.token_pages(kRequest, group)
                                     : pool.slot_pages(kRequest, group)};
}

}  // namespace

namespace {

std::vector<std::pair<Kind, Kind>> ways() {
  return {{Kind::tokens, Kind::host}, {Kind::tokens, Kind::slots}, {Kind::slots, Kind::tokens},
          {Kind::slots, Kind::host},  {Kind::host, Kind::tokens},  {Kind::host, Kind::slots}};
}

/// First and last row.
std::vector<std::pair<index_t, index_t>> ranges() { return {{5, 31}, {0, 64}, {3, 4}, {0, 0}}; }

const std::vector<index_t> kGroups = {0, 2};  // the last group has one layer

struct Move {
  Kind from, to;
  index_t group, first, last;
};

void check(const NamedBackend& b, const PoolShape& shape, const Move& m) {
  CAPTURE(b.name, static_cast<int>(m.from), static_cast<int>(m.to), m.group, m.first, m.last,
          dtype_name(shape.dtype), dtype_name(shape.host_dtype), shape.k_dim, shape.order);
  PoolData pool(*b.backend, shape);
  fill_slots(pool);
  pool.upload();
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->move_rows({.pool = pool.view(),
                          .request = {static_cast<std::int32_t>(kRequest)},
                          .group = m.group,
                          .from = place(pool, m.from, m.group),
                          .to = place(pool, m.to, m.group),
                          .first = m.first,
                          .last = m.last},
                         stream);
  });
  PoolData expected(*b.backend, shape);
  fill_slots(expected);
  move_by_definition(expected, m.group, m.from, m.to, m.first, m.last);
  pool.download();
  REQUIRE((pool.device_pages == expected.device_pages));
  REQUIRE((pool.host_pages == expected.host_pages));
}

}  // namespace

TEST_CASE("move_rows copies the rows of a group between any two places and touches nothing else") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const bool is_wide = GENERATE(false, true);
  const auto [way, group, range, order] =
      GENERATE(from_range(combinations(ways(), kGroups, ranges(), page_orders())));
  check(b, tier_shape(2, {DType::bf16, DType::bf16}, is_wide, order),
        {way.first, way.second, group, range.first, range.second});
}

TEST_CASE("move_rows between the device and a host tier of a smaller type") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [kind, way, group, order] = GENERATE(from_range(combinations(
      row_kinds(), ways(), kGroups, std::vector{PageOrder::heads, PageOrder::split_rows})));
  check(b, tier_shape(2, kind.first, kind.second, order), {way.first, way.second, group, 5, 31});
}
