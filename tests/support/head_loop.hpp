// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <map>
#include <string>

#include "device_reader.hpp"
#include "guard_reference.hpp"
#include "head_data.hpp"
#include "spectx/prefetch_pipeline.hpp"

namespace spectx::test {

/// A retrieval head without a model: the hidden states are random, and a reference of every request
/// runs beside it.
class HeadLoop {
 public:
  static constexpr index_t kHidden = HeadData::kHidden;

  HeadLoop(Backend& b, const HeadSetup& setup, unsigned seed)
      : backend(b),
        stream(b.make_stream()),
        data(b, setup, seed),
        pool(b, HeadData::shape_of(setup), HeadData::plan_of(setup), b.memories()),
        head(b, pool, data.weights, setup.config, b.memories()),
        pipeline(b, pool, {}),
        reader_(b, b.memories().host),
        random_(seed + 1),
        config_(setup.config) {
    auto& map = config_.head_of_kv_head;
    for (index_t h = static_cast<index_t>(map.size()); h < setup.kv_heads; ++h) {
      map.push_back(static_cast<std::int32_t>(h * setup.head.kv_heads / setup.kv_heads));
    }
  }

  RequestId open() {
    const RequestId id = pool.open(pool.plan().max_length);
    references.insert_or_assign(id.value, HeadReference(data.numbers, config_));
    guards[id.value] = {};
    return id;
  }
  void rewind(RequestId id, index_t length) {
    pool.rewind(id, length, stream);
    references.at(id.value).rewind(length);
  }
  std::vector<std::int32_t> tokens(index_t count) {
    std::vector<std::int32_t> all;
    for (index_t i = 0; i < count; ++i) {
      all.push_back(static_cast<std::int32_t>(random_.below(HeadData::kVocabulary)));
    }
    return all;
  }
  BatchItem item(RequestId id, index_t rows, bool is_dense = false) {
    held_.push_back(tokens(rows));
    return {id, held_.back(), is_dense};
  }

  /// A step with random hidden states. What is selected is compared with the references.
  void step(const std::vector<BatchItem>& items, bool is_selected_twice = false) {
    const Batch& batch = pool.schedule(items, stream);
    if (is_selected_twice) head.select(batch, stream);
    const Selection selection = head.select(batch, stream);
    read(batch, selection);
    for (std::size_t i = 0; i < items.size(); ++i) compare(batch, i, items[i]);
    pipeline.begin_step(batch, selection, stream);
    const auto& taps = data.weights.feature_layers;
    std::vector<std::vector<float>> features(at(batch.num_rows));
    const index_t layers = pool.shape().layers;
    const DeviceMatrix matrix(backend, data.numbers.compute, layers * batch.num_rows, kHidden,
                              random_.normal(layers * batch.num_rows * kHidden), {3, 0});
    for (index_t layer = 0; layer < layers; ++layer) {
      const index_t first = layer * batch.num_rows;
      head.observe(layer, batch, rows(matrix.view(), first, batch.num_rows), stream);
      const auto count = std::count(taps.begin(), taps.end(), layer);
      for (index_t r = 0; r < batch.num_rows; ++r) {
        for (auto n = count; n > 0; --n) {
          const auto begin = matrix.rounded().begin() + (first + r) * kHidden;
          features[at(r)].insert(features[at(r)].end(), begin, begin + kHidden);
        }
      }
    }
    pipeline.end_step(stream);
    backend.synchronize(stream);
    std::size_t row = 0;
    for (const BatchItem& item : items) {
      for (const std::int32_t token : item.tokens) {
        references.at(item.request.value).push(token, features[row++]);
      }
    }
    held_.clear();
  }

  /// Keys of a request's rows that differ from the reference's by more than they may.
  index_t wrong_keys(RequestId id) {
    const KVView view = pool.key_view();
    const HeadReference& reference = references.at(id.value);
    const double rounding = view.dtype == DType::f32   ? 0
                            : view.dtype == DType::f16 ? 0x1p-11
                                                       : 0x1p-8;
    index_t count = 0;
    for (index_t h = 0; h < view.kv_heads; ++h) {
      const std::vector<std::vector<float>> keys = read_keys(view, id, h, reference.length());
      for (index_t p = 1; p < reference.length(); ++p) {
        const std::vector<float>& got = keys[at(p)];
        for (index_t d = 0; d < view.k_dim; ++d) {
          const double expected = reference.key(p).value[at(h * view.k_dim + d)];
          const double error = reference.key(p).error[at(h * view.k_dim + d)];
          const double allowed = error + rounding * (std::abs(expected) + error);
          count += std::abs(static_cast<double>(got[at(d)]) - expected) <= allowed ? 0 : 1;
        }
      }
    }
    return count;
  }

  Backend& backend;
  Stream stream;
  HeadData data;
  KVPool pool;
  RetrievalHead head;
  PrefetchPipeline pipeline;
  std::map<std::int32_t, HeadReference> references;
  std::map<std::int32_t, GuardReference> guards;
  std::array<int, 4> outcomes{};  // steps of an item, by GuardOutcome
  index_t exact = 0, near = 0;    // selections of a KV head
  std::vector<std::string> wrong;

 private:
  void compare(const Batch& batch, std::size_t i, const BatchItem& asked);

  /// [length, k_dim] but for row 0, which has none.
  std::vector<std::vector<float>> read_keys(const KVView& view, RequestId id, index_t h,
                                            index_t length) {
    std::byte* const* const table =
        reader_.ask(view.pages_of(id.value, false), ceil_div(length, view.page_rows), stream);
    reader_.wait(stream);
    const std::vector<std::byte*> pages(table, table + ceil_div(length, view.page_rows));
    std::vector<std::vector<float>> keys(at(length));
    dispatch_dtype(view.dtype, [&]<class T>() {
      std::vector<const T*> rows(at(length));
      for (index_t p = 1; p < length; ++p) {
        const std::byte* const row = pages[at(p / view.page_rows)] + h * view.head_stride +
                                     p % view.page_rows * view.row_stride;
        rows[at(p)] = reader_.ask(reinterpret_cast<const T*>(row), view.k_dim, stream);
      }
      reader_.wait(stream);
      for (index_t p = 1; p < length; ++p) {
        for (index_t d = 0; d < view.k_dim; ++d) keys[at(p)].push_back(to_float(rows[at(p)][d]));
      }
    });
    return keys;
  }
  /// A step's selection, on the host.
  void read(const Batch& batch, const Selection& s) {
    if (!batch.needs_selection) return;
    const auto items = static_cast<index_t>(batch.items.size());
    const index_t heads = items * pool.shape().kv_heads;
    selected_ = {};
    const auto take = [&](auto& to, const auto* from, index_t count) {
      const auto* const values = reader_.ask(from, count, stream);
      reader_.wait(stream);
      to.assign(values, values + count);
    };
    take(selected_.counts, s.counts.data, heads);
    if (s.coverage.size > 0) take(selected_.coverage, s.coverage.data, 2 * heads);
    if (s.outcomes.size > 0) take(selected_.outcomes, s.outcomes.data, items);
    std::vector<const std::int32_t*> ids;
    for (index_t h = 0; h < heads; ++h) {
      const index_t count = std::max(selected_.counts[at(h)], 0);
      ids.push_back(reader_.ask(s.ids.data + h * s.max_budget, count, stream));
    }
    reader_.wait(stream);
    for (index_t h = 0; h < heads; ++h) {
      selected_.ids.emplace_back(ids[at(h)], ids[at(h)] + std::max(selected_.counts[at(h)], 0));
    }
  }
  SelectionConfig compare_rung(const ScheduledItem& item, std::size_t i);

  struct Selected {
    std::vector<std::int32_t> counts;
    std::vector<std::vector<std::int32_t>> ids;
    std::vector<float> coverage;         // empty: not measured
    std::vector<GuardOutcome> outcomes;  // empty: no guard
  };

  DeviceReader reader_;
  Selected selected_;
  Random random_;
  HeadConfig config_;  // with its whole map
  std::vector<std::vector<std::int32_t>> held_;
};

}  // namespace spectx::test

#include "head_loop_compare.hpp"
