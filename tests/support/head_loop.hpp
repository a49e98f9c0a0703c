// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <map>
#include <string>

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
    for (std::size_t i = 0; i < items.size(); ++i) compare(batch, i, items[i], selection);
    pipeline.begin_step(batch, selection, stream);
    const auto& taps = data.weights.feature_layers;
    std::vector<std::vector<float>> features(at(batch.num_rows));
    for (index_t layer = 0; layer < pool.shape().layers; ++layer) {
      const DeviceMatrix matrix(backend, data.numbers.compute, batch.num_rows, kHidden,
                                random_.normal(batch.num_rows * kHidden), {3, 0});
      const std::vector<float> hidden = matrix.rounded();
      head.observe(layer, batch, matrix.view(), stream);
      const auto count = std::count(taps.begin(), taps.end(), layer);
      for (index_t r = 0; r < batch.num_rows; ++r) {
        for (auto n = count; n > 0; --n) {
          const auto begin = hidden.begin() + r * kHidden;
          features[at(r)].insert(features[at(r)].end(), begin, begin + kHidden);
        }
      }
      backend.synchronize(stream);
    }
    pipeline.end_step(stream);
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
    for (index_t p = 1; p < reference.length(); ++p) {
      for (index_t h = 0; h < view.kv_heads; ++h) {
        const std::vector<float> got = read_key(view, id, h, p);
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
  std::vector<float> read_key(const KVView& view, RequestId id, index_t h, index_t p) {
    std::byte* page = nullptr;
    backend.copy(&page, view.pages_of(id.value, false) + p / view.page_rows, sizeof(page), stream);
    backend.synchronize(stream);
    std::vector<float> values;
    dispatch_dtype(view.dtype, [&]<class T>() {
      std::vector<T> row(at(view.k_dim));
      backend.copy(row.data(), page + h * view.head_stride + p % view.page_rows * view.row_stride,
                   view.k_dim * index_t{sizeof(T)}, stream);
      backend.synchronize(stream);
      for (const T x : row) values.push_back(to_float(x));
    });
    return values;
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
  void compare(const Batch& batch, std::size_t i, const BatchItem& asked, const Selection& s);

  template <class T>
  T read(const T* device) const {
    T value{};
    backend.copy(&value, device, index_t{sizeof(T)}, stream);
    backend.synchronize(stream);
    return value;
  }
  SelectionConfig compare_rung(const ScheduledItem& item, std::size_t i, const Selection& s);

  Random random_;
  HeadConfig config_;  // with its whole map
  std::vector<std::vector<std::int32_t>> held_;
};

}  // namespace spectx::test

#include "head_loop_compare.hpp"
