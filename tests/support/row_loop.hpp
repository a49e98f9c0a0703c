// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <map>
#include <vector>

#include "device_reader.hpp"
#include "found_rows.hpp"
#include "known_rows.hpp"
#include "row_choice.hpp"
#include "spectx/prefetch_pipeline.hpp"

namespace spectx::test {

/// A pool and a pipeline without a model: a step writes rows of known values, then reads every row
/// that its items read and counts those that differ from what was last written there, and those
/// that lost in a host tier of a smaller type what such a tier loses.
class RowLoop {
 public:
  RowLoop(Backend& b, const ModelShape& shape, const PoolPlan& plan, PageLender* lender = nullptr)
      : RowLoop(b, shape, plan, b.memories(), lender) {}
  RowLoop(Backend& b, const ModelShape& shape, const PoolPlan& plan, Memories memories,
          PageLender* lender = nullptr)
      : backend(b),
        stream(b.make_stream()),
        pool(b, shape, plan, memories, lender),
        pipeline(b, pool, {}),
        reader(b, b.memories().host),
        content_(shape, plan.host_dtype),
        choice_(plan, shape.kv_heads, memories.device),
        k_(memories.device, plan.max_step_rows * shape.kv_heads * shape.k_dim * 4),
        v_(memories.device, plan.max_step_rows * shape.kv_heads * shape.v_dim * 4),
        tokens_(static_cast<std::size_t>(plan.max_step_rows), 1) {}
  /// What is still on the stream reads what goes now.
  ~RowLoop() { backend.synchronize(stream); }

  RequestId open(index_t final_length) {
    const RequestId id = pool.open(final_length);
    rows_[id.value].clear();
    return id;
  }
  BatchItem item(RequestId id, index_t rows, bool is_dense = false) const {
    return {id, std::span(tokens_).first(static_cast<std::size_t>(rows)), is_dense};
  }
  /// Prompt rows in chunks of at most max_step_rows.
  void prefill(RequestId id, index_t rows) {
    for (index_t chunk = pool.plan().max_step_rows; rows > 0; rows -= chunk) {
      step({item(id, std::min(rows, chunk), true)});
    }
  }
  void rewind(RequestId id, index_t length) {
    pool.rewind(id, length, stream);
    rows_[id.value].resize(static_cast<std::size_t>(length));
  }
  void place(RequestId id, std::int32_t resident_groups) {
    std::vector<std::int32_t> target;
    for (const RequestNeed& n : pool.needs()) {
      target.push_back(n.request == id ? resident_groups : n.resident_groups);
    }
    pipeline.apply({pool.needs(), target}, stream);
    if (waits) pipeline.wait_ready();
  }

  /// Of the batch that was scheduled, for all heads of all items.
  Selection select(const Batch& batch, index_t phase) {
    return choice_.select(backend, batch, phase, stream);
  }

  void step(const std::vector<BatchItem>& items, index_t phase = 0) {
    const Batch& batch = pool.schedule(items, stream);
    pipeline.begin_step(batch, select(batch, phase), stream);
    for (const ScheduledItem& item : batch.items) {
      for (index_t n = 0; n < item.rows; ++n) rows_[item.request.value].push_back(++writes_);
    }
    for (index_t layer = 0; layer < pool.shape().layers; ++layer) {
      if (pool.shape().kind(layer) == AttentionKind::full) run_layer(batch, layer, phase);
    }
    pipeline.end_step(stream);
    backend.synchronize(stream);
    if (waits) pipeline.wait_ready();
  }
  void warm(const std::vector<BatchItem>& items, index_t phase = 0) {
    const Batch& batch = pool.schedule(items, stream);
    pipeline.warm(batch, select(batch, phase), stream);
    if (waits) pipeline.wait_ready();
  }

  Backend& backend;
  Stream stream;
  KVPool pool;
  PrefetchPipeline pipeline;
  DeviceReader reader;
  bool waits = true;  // for the transfers of every call
  index_t rows_read = 0;
  index_t wrong_rows = 0;
  index_t lossy_rows = 0;

 private:
  TensorView write(const Buffer& to, const Batch& batch, index_t layer, index_t dim, index_t from) {
    const index_t heads = pool.shape().kv_heads;
    std::vector<float> values;
    for (const ScheduledItem& item : batch.items) {
      for (index_t n = item.first; n < item.first + item.rows; ++n) {
        const int row = rows_[item.request.value][static_cast<std::size_t>(n)];
        for (index_t h = 0; h < heads; ++h) {
          const std::vector<float> part = content_.values(row, layer, h, from, dim);
          values.insert(values.end(), part.begin(), part.end());
        }
      }
    }
    backend.copy(to.data(), values.data(), static_cast<index_t>(values.size() * 4), stream);
    return split_heads(matrix_view(to.data(), DType::f32, batch.num_rows, heads * dim), heads, dim);
  }
  void run_layer(const Batch& batch, index_t layer, index_t phase) {
    const ModelShape& shape = pool.shape();
    const TensorView k = write(k_, batch, layer, shape.k_dim, 0);
    const TensorView v = write(v_, batch, layer, shape.v_dim, shape.k_dim);
    const KVView view = pipeline.append(layer, k, v, stream);
    // The tables, then the rows that they name.
    const auto items = static_cast<index_t>(batch.items.size());
    std::vector<std::byte* const*> tables;
    std::vector<const std::int32_t*> slots;  // [items, kv_heads]
    for (index_t i = 0; i < items; ++i) {
      const ScheduledItem& item = batch.items[static_cast<std::size_t>(i)];
      const index_t rows = is_in_slots(view, item) ? pool.plan().slots : item.first + item.rows;
      tables.push_back(reader.ask(view.pages_of(item.request.value, is_staged(view, item)),
                                  ceil_div(rows, view.page_rows), stream));
      for (index_t head = 0; head < shape.kv_heads; ++head) {
        const index_t count = is_in_slots(view, item)
                                  ? static_cast<index_t>(choice_.read_by(item, head, phase).size())
                                  : 0;
        slots.push_back(count == 0 ? nullptr
                                   : reader.ask(view.slot_of_rank +
                                                    (i * shape.kv_heads + head) * view.max_budget,
                                                count, stream));
      }
    }
    reader.wait(stream);
    std::vector<FoundRow> rows;
    for (index_t i = 0; i < items; ++i) {
      const ScheduledItem& item = batch.items[static_cast<std::size_t>(i)];
      for (index_t head = 0; head < shape.kv_heads; ++head) {
        const std::int32_t* const of_rank =
            slots[static_cast<std::size_t>(i * shape.kv_heads + head)];
        const RowChoice::Ids ids = choice_.read_by(item, head, phase);
        for (std::size_t rank = 0; rank < ids.size(); ++rank) {
          const index_t n = is_in_slots(view, item) ? of_rank[rank] : ids[rank];
          const std::byte* const page = tables[static_cast<std::size_t>(i)][n / view.page_rows];
          const std::byte* const at = page + view.offset_of(is_staged(view, item)) +
                                      head * view.head_stride +
                                      n % view.page_rows * view.row_stride;
          const int write = rows_[item.request.value][static_cast<std::size_t>(ids[rank])];
          rows.push_back({write, head, page, at, at + view.v_offset});
        }
      }
    }
    read_rows(reader, rows, view, stream);
    for (const FoundRow& row : rows) {
      const KnownRows::State state = content_.state(row.k, row.v, row.write, layer, row.head);
      ++rows_read;
      lossy_rows += state == KnownRows::State::lossy ? 1 : 0;
      wrong_rows += state == KnownRows::State::wrong ? 1 : 0;
    }
  }
  bool is_offloaded(const KVView& view, const ScheduledItem& item) const {
    return pool.resident_groups(item.request) <= view.group;
  }
  bool is_staged(const KVView& view, const ScheduledItem& item) const {
    return is_offloaded(view, item) && !item.selects;
  }
  bool is_in_slots(const KVView& view, const ScheduledItem& item) const {
    return is_offloaded(view, item) && item.selects;
  }
  KnownRows content_;
  RowChoice choice_;
  Buffer k_, v_;
  std::vector<std::int32_t> tokens_;
  std::map<std::int32_t, std::vector<int>> rows_;  // the write that made each row
  int writes_ = 0;
};

}  // namespace spectx::test
