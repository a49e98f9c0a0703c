// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/batches.hpp"
#include "support/kv_pages.hpp"
#include "support/shapes.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

constexpr index_t kTokens = 90;
constexpr index_t kRequests = 3;

/// Where the rows of a batch must have gone: place[row][head], -1: nowhere; token n of the staging
/// pages is kStaged + n.
constexpr std::int32_t kStaged = kTokens;
using Places = std::vector<std::vector<std::int32_t>>;

struct AppendCase {
  HeadsShape heads;
  DType dtype;
  std::vector<ScheduledItem> items;
  std::vector<std::int32_t> counts;    // [items, kv_heads]; empty: every token
  std::vector<std::int32_t> resident;  // [requests]
  std::vector<std::int32_t> row_index;
  bool has_v = true;

  void check(Backend& backend, const std::vector<std::int32_t>& slot_of_token,
             const Places& places) const {
    const PagesShape shape{.requests = kRequests,
                           .kv_heads = heads.kv_heads,
                           .k_dim = heads.k_dim,
                           .v_dim = has_v ? heads.v_dim : 0,
                           .rows = kTokens,
                           .dtype = dtype};
    std::vector<KVPages> pages;
    pages.emplace_back(backend, shape, 1);
    pages.emplace_back(backend, shape, 2);
    const BatchData batch(backend, items);
    const index_t rows = static_cast<index_t>(places.size());
    const DeviceMatrix k(backend, DType::f32, rows, heads.kv_heads * heads.k_dim,
                         Random(1).normal(rows * heads.kv_heads * heads.k_dim), Padding{3, 1});
    const DeviceMatrix v(backend, DType::f32, rows, heads.kv_heads * heads.v_dim,
                         Random(2).normal(rows * heads.kv_heads * heads.v_dim), Padding{1, 2});
    const DeviceArray<std::int32_t> device_counts(backend, counts);
    const DeviceArray<std::int32_t> device_resident(backend, resident);
    const DeviceArray<std::int32_t> slots(backend, slot_of_token);
    const DeviceArray<std::int32_t> index(backend, row_index);
    AppendRowsArgs args{.k = k.heads(heads.kv_heads),
                        .batch = batch.get(),
                        .row_index = index,
                        .to = pages[0].view(&pages[1]),
                        .slot_of_token = slots.data(),
                        .max_length = kTokens};
    if (has_v) args.v = v.heads(heads.kv_heads);
    if (!counts.empty()) args.to.counts = device_counts.data();
    if (!resident.empty()) args.to.resident_groups = device_resident.data();
    run_on(backend, [&](StreamView stream) { backend.append_rows(args, stream); });
    for (KVPages& p : pages) p.download();
    compare(pages, k, v, places);
  }

  /// Every row is where it belongs and nothing else was written.
  void compare(const std::vector<KVPages>& pages, const DeviceMatrix& k, const DeviceMatrix& v,
               const Places& places) const {
    const BatchRows of(items, row_index);
    std::vector<bool> is_written(at(2 * kRequests * heads.kv_heads * kTokens));
    for (std::size_t i = 0; i < places.size(); ++i) {
      for (index_t h = 0; h < heads.kv_heads && places[i][at(h)] >= 0; ++h) {
        std::vector<float> expected = part(k, i, h, heads.k_dim);
        if (has_v) {
          const std::vector<float> values = part(v, i, h, heads.v_dim);
          expected.insert(expected.end(), values.begin(), values.end());
        }
        const index_t store = places[i][at(h)] / kTokens;
        const index_t n = places[i][at(h)] % kTokens;
        REQUIRE(pages[at(store)].get(of.request[i], h, n) == expected);
        is_written[entry(store, of.request[i], h, n)] = true;
      }
    }
    for (index_t store = 0; store < 2; ++store) {
      for (index_t request = 0; request < kRequests; ++request) {
        for (index_t h = 0; h < heads.kv_heads; ++h) {
          for (index_t n = 0; n < kTokens; ++n) {
            if (is_written[entry(store, request, h, n)]) continue;
            const std::vector<float> left = pages[at(store)].get(request, h, n);
            REQUIRE(std::all_of(left.begin(), left.end(), [](float x) { return std::isnan(x); }));
          }
        }
      }
    }
  }
  std::size_t entry(index_t store, index_t request, index_t head, index_t n) const {
    return at(((store * kRequests + request) * heads.kv_heads + head) * kTokens + n);
  }

  struct BatchRows {
    BatchRows(const std::vector<ScheduledItem>& items, const std::vector<std::int32_t>& index) {
      std::vector<index_t> all;
      for (const ScheduledItem& item : items) {
        all.insert(all.end(), at(item.rows), item.request.value);
      }
      if (index.empty()) request = all;
      for (const std::int32_t row : index) request.push_back(row < 0 ? -1 : all[at(row)]);
    }
    std::vector<index_t> request;
  };

  std::vector<float> part(const DeviceMatrix& from, std::size_t i, index_t head,
                          index_t dim) const {
    const auto begin =
        from.rounded().begin() + (static_cast<index_t>(i) * heads.kv_heads + head) * dim;
    std::vector<float> values(begin, begin + dim);
    dispatch_dtype(dtype, [&]<class T>() {
      for (float& value : values) value = to_float(from_float<T>(value));
    });
    return values;
  }
};

}  // namespace

TEST_CASE("append_rows writes resident rows by token, rounded to the pages' type") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const DType dtype = GENERATE(from_range(kRowTypes));
  const auto [heads, has_v] =
      GENERATE(from_range(combinations(kHeadsShapes, std::vector{true, false})));
  CAPTURE(b.name, heads.kv_heads, heads.k_dim, dtype_name(dtype), has_v);
  AppendCase c{heads,
               dtype,
               {{.request = {2}, .first = 30, .rows = 40},
                {.request = {0}, .first = 89, .rows = 1},
                {.request = {1}, .first = 0, .rows = 0}},
               {},
               {},
               {},
               has_v};
  Places places;
  for (std::int32_t p = 30; p < 70; ++p) places.emplace_back(at(heads.kv_heads), p);
  places.emplace_back(at(heads.kv_heads), 89);
  c.check(*b.backend, {}, places);
}

TEST_CASE(
    "append_rows writes offloaded rows into their slots, into staging where everything is read") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  // Request 0 is offloaded; of its two heads the second reads everything. Request 1 is resident.
  AppendCase c{{4, 2, 64, 64},
               DType::bf16,
               {{.request = {0}, .first = 50, .rows = 2, .selects = true},
                {.request = {1}, .first = 60, .rows = 1, .selects = true}},
               {20, kAllTokens, 20, 20},
               {0, 1, 0},
               {}};
  std::vector<std::int32_t> slots(at(kRequests * 2 * kTokens), -1);
  slots[50] = 7;
  slots[51] = 3;
  slots[at(2 * kTokens + 60)] = 5;
  c.check(*b.backend, slots, {{7, kStaged + 50}, {3, kStaged + 51}, {60, 60}});
}

TEST_CASE("append_rows follows row_index and leaves out what is negative") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  AppendCase c{{2, 2, 64, 64},
               DType::f32,
               {{.request = {0}, .first = 10, .rows = 3}, {.request = {2}, .first = 4, .rows = 1}},
               {},
               {},
               {3, -1, 1},
               false};
  c.check(*b.backend, {}, {{4, 4}, {-1, -1}, {11, 11}});
}
