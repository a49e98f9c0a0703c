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
          std::memcpy(&pool.device_pages[*target], &pool.device_pages[*source],
                      at(pool.row_bytes()));
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

TEST_CASE("move_rows copies the rows of a group between any two places and touches nothing else") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [from, to] = GENERATE(table<Kind, Kind>({{Kind::tokens, Kind::host},
                                                      {Kind::tokens, Kind::slots},
                                                      {Kind::slots, Kind::tokens},
                                                      {Kind::slots, Kind::host},
                                                      {Kind::host, Kind::tokens},
                                                      {Kind::host, Kind::slots}}));
  const index_t group = GENERATE(0, 2);  // the last group has one layer
  const auto [first, last] = GENERATE(table<index_t, index_t>({{0, 0}, {3, 4}, {5, 31}, {0, 64}}));
  const Kind source = from;
  const Kind target = to;
  const index_t begin = first;
  const index_t end = last;
  const PoolShape shape = tier_shape(2, GENERATE(from_range(host_types())), GENERATE(false, true));
  CAPTURE(b.name, static_cast<int>(source), static_cast<int>(target), group, begin, end,
          dtype_name(shape.dtype), dtype_name(shape.host_dtype), shape.k_dim);
  PoolData pool(*b.backend, shape);
  fill_slots(pool);
  pool.upload();
  run_on(*b.backend, [&](StreamView stream) {
    b.backend->move_rows({.pool = pool.view(),
                          .request = {static_cast<std::int32_t>(kRequest)},
                          .group = group,
                          .from = place(pool, source, group),
                          .to = place(pool, target, group),
                          .first = begin,
                          .last = end},
                         stream);
  });
  PoolData expected(*b.backend, shape);
  fill_slots(expected);
  move_by_definition(expected, group, source, target, begin, end);
  pool.download();
  REQUIRE((pool.device_pages == expected.device_pages));
  REQUIRE((pool.host_pages == expected.host_pages));
}
