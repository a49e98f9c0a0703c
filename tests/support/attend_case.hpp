// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "batches.hpp"
#include "kv_pages.hpp"
#include "shapes.hpp"

namespace spectx::test {

struct AttendItem {
  ScheduledItem item;
  std::vector<std::vector<std::int32_t>> ids;  // of each KV head; empty: every token
  bool is_offloaded = false;                   // its rows are in slots; every token: in staging
};

/// Queries, keys and values that depend on request, head and token alone, laid out as a test asks.
class AttendCase {
 public:
  AttendCase(HeadsShape heads, DType dtype, index_t requests, index_t tokens, std::uint32_t seed,
             DType activations = DType::f32)
      : heads_(heads),
        dtype_(dtype),
        activations_(activations),
        requests_(requests),
        tokens_(tokens) {
    Random random(seed);
    for (index_t i = 0; i < requests * heads.kv_heads * tokens; ++i) {
      keys_.push_back(rounded(random.normal(heads.k_dim), dtype));
      values_.push_back(rounded(random.normal(heads.v_dim), dtype));
    }
    for (index_t i = 0; i < requests * tokens * heads.query_heads; ++i) {
      queries_.push_back(rounded(random.normal(heads.k_dim), activations));
    }
  }

  /// Makes the values of a token infinite.
  void spoil(index_t request, index_t token) {
    for (index_t h = 0; h < heads_.kv_heads; ++h) {
      for (float& value : values_[index(request, h, token)]) {
        value = std::numeric_limits<float>::infinity();
      }
    }
  }

  /// out [rows, query_heads, v_dim]. `layout` orders pages, slots and what is in a page; `padding`
  /// is of q.
  std::vector<float> run(Backend& backend, const std::vector<AttendItem>& items,
                         std::uint32_t layout = 1, Padding padding = {3, 1}) const {
    const PagesShape shape{.requests = requests_,
                           .kv_heads = heads_.kv_heads,
                           .k_dim = heads_.k_dim,
                           .v_dim = heads_.v_dim,
                           .rows = tokens_,
                           .dtype = dtype_,
                           .order = order_of(layout)};
    KVPages pages(backend, shape, layout);
    KVPages staging(backend, shape, layout + 1);
    Tables tables(items, heads_.kv_heads, requests_, tokens_, layout);
    for (std::size_t i = 0; i < items.size(); ++i) {
      place(items[i], i, tables, items[i].ids.empty() && items[i].is_offloaded ? staging : pages);
    }
    pages.upload();
    staging.upload();
    const BatchData batch(backend, scheduled(items));
    const DeviceArray<std::int32_t> counts(backend, tables.counts);
    const DeviceArray<std::int32_t> ids(backend, tables.ids);
    const DeviceArray<std::int32_t> slots(backend, tables.slots);
    const DeviceArray<std::int32_t> resident(backend, tables.resident);
    KVView kv = pages.view(&staging);
    kv.counts = counts.data();
    kv.ids = ids.data();
    kv.slot_of_rank = slots.data();
    kv.max_budget = tokens_;
    kv.resident_groups = resident.data();

    const index_t rows = batch.get()->num_rows;
    const index_t width = heads_.query_heads * heads_.k_dim;
    const DeviceMatrix q(backend, activations_, rows, width, queries_of(items), padding);
    const DeviceMatrix out(backend, activations_, rows, heads_.query_heads * heads_.v_dim,
                           Padding{padding.columns + padding.offset + 1, 0});
    run_on(backend, [&](StreamView stream) {
      backend.attend({.q = q.heads(heads_.query_heads),
                      .kv = kv,
                      .batch = batch.get(),
                      .out = out.heads(heads_.query_heads)},
                     stream);
    });
    return out.is_padding_intact() ? out.read() : std::vector<float>{};
  }

  std::vector<Bound> expected(const std::vector<AttendItem>& items) const {
    std::vector<Bound> bounds;
    const double scale = 1 / std::sqrt(static_cast<double>(heads_.k_dim));
    for (const AttendItem& item : items) {
      const index_t request = item.item.request.value;
      for (index_t p = item.item.first; p < item.item.first + item.item.rows; ++p) {
        for (index_t h = 0; h < heads_.query_heads; ++h) {
          const index_t head = h * heads_.kv_heads / heads_.query_heads;
          std::vector<KeyAndValue> seen;
          for (const std::int32_t id : ids_of(item, head)) {
            if (id > p) continue;
            const std::size_t n = index(request, head, id);
            seen.push_back(
                {{keys_[n].begin(), keys_[n].end()}, {values_[n].begin(), values_[n].end()}});
          }
          const float* const q =
              queries_[at((request * tokens_ + p) * heads_.query_heads + h)].data();
          for (const Bound& b : attend_reference(q, seen, heads_.v_dim, scale)) bounds.push_back(b);
        }
      }
    }
    return bounds;
  }

 private:
  struct Tables {
    Tables(const std::vector<AttendItem>& items, index_t kv_heads, index_t num_requests,
           index_t tokens, std::uint32_t seed)
        : counts(items.size() * at(kv_heads), kAllTokens),
          ids(counts.size() * at(tokens), -1),
          slots(ids),
          resident(at(num_requests), 1),
          random(seed) {}
    std::vector<std::int32_t> counts, ids, slots, resident;
    Random random;
  };

  PageOrder order_of(std::uint32_t layout) const {
    if (heads_.k_dim != heads_.v_dim) return layout % 2 == 1 ? PageOrder::heads : PageOrder::rows;
    return static_cast<PageOrder>((layout + 3) % 4);
  }
  static std::vector<float> rounded(std::vector<float> values, DType dtype) {
    dispatch_dtype(dtype, [&]<class T>() {
      for (float& value : values) value = to_float(from_float<T>(value));
    });
    return values;
  }
  std::size_t index(index_t request, index_t head, index_t token) const {
    return at((request * heads_.kv_heads + head) * tokens_ + token);
  }
  std::vector<std::int32_t> ids_of(const AttendItem& item, index_t head) const {
    if (!item.ids.empty()) return item.ids[at(head)];
    std::vector<std::int32_t> all(at(item.item.first + item.item.rows));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  static std::vector<ScheduledItem> scheduled(const std::vector<AttendItem>& items) {
    std::vector<ScheduledItem> all;
    for (const AttendItem& item : items) all.push_back(item.item);
    return all;
  }
  std::vector<float> queries_of(const std::vector<AttendItem>& items) const {
    std::vector<float> q;
    for (const AttendItem& item : items) {
      for (index_t p = item.item.first; p < item.item.first + item.item.rows; ++p) {
        for (index_t h = 0; h < heads_.query_heads; ++h) {
          const auto& from =
              queries_[at((item.item.request.value * tokens_ + p) * heads_.query_heads + h)];
          q.insert(q.end(), from.begin(), from.end());
        }
      }
    }
    return q;
  }
  /// Writes an item's rows where it reads them, and says so in the tables.
  void place(const AttendItem& item, std::size_t i, Tables& tables, KVPages& pages) const {
    const index_t request = item.item.request.value;
    if (item.is_offloaded) tables.resident[at(request)] = 0;
    for (index_t h = 0; h < heads_.kv_heads; ++h) {
      const std::vector<std::int32_t> ids = ids_of(item, h);
      const std::vector<std::int32_t> slots = tables.random.permutation(tokens_);
      const std::size_t entry = i * at(heads_.kv_heads) + at(h);
      if (!item.ids.empty()) tables.counts[entry] = static_cast<std::int32_t>(ids.size());
      for (std::size_t rank = 0; rank < ids.size(); ++rank) {
        const bool is_in_slot = item.is_offloaded && !item.ids.empty();
        const index_t n = is_in_slot ? slots[rank] : ids[rank];
        if (!item.ids.empty()) {
          tables.ids[entry * at(tokens_) + rank] = ids[rank];
          if (is_in_slot) tables.slots[entry * at(tokens_) + rank] = slots[rank];
        }
        const std::size_t from = index(request, h, ids[rank]);
        pages.set(request, h, n, keys_[from], values_[from]);
      }
    }
  }

  HeadsShape heads_;
  DType dtype_, activations_;
  index_t requests_, tokens_;
  std::vector<std::vector<float>> keys_, values_, queries_;
};

}  // namespace spectx::test
