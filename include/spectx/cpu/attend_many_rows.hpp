// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <array>
#include <limits>

#include "spectx/cpu/context.hpp"
#include "spectx/cpu/kv_rows.hpp"

namespace spectx::cpu {

/// Attention of items with many rows: prompt chunks. Bound by arithmetic: blocks of queries against
/// blocks of keys with a running softmax, two matrix products a pair of blocks. The matrices have a
/// column for each key and a row for each query, so that the softmax runs over whole columns.
template <class T>
class AttendManyRows {
 public:
  AttendManyRows(const AttendArgs& a, Context& context) noexcept
      : a_(a), shape_(a), context_(context) {
    block_rows_ = std::max(kBlockQueries / shape_.group, index_t{1});
  }

  /// All items with more than `few_rows`.
  void run(index_t few_rows) {
    const Batch& batch = *a_.batch;
    for (index_t i = 0; i < num_items(batch); ++i) {
      const index_t begin = batch.row_begin.data[i];
      const index_t count = batch.row_begin.data[i + 1] - begin;
      if (count <= few_rows) continue;
      const index_t blocks = (count + block_rows_ - 1) / block_rows_;
      context_.for_each(blocks * a_.kv.kv_heads, [&](index_t task, int thread) {
        const index_t block = blocks - 1 - task / a_.kv.kv_heads;  // the longest first
        const index_t from = begin + block * block_rows_;
        attend({.item = i,
                .head = task % a_.kv.kv_heads,
                .first = from,
                .rows = std::min(block_rows_, begin + count - from)},
               thread);
      });
    }
  }

 private:
  using Columns = Eigen::Map<Eigen::MatrixXf, Eigen::Aligned64, Eigen::OuterStride<>>;
  using Queries = Eigen::Map<Eigen::ArrayXf, Eigen::Aligned64>;  // [queries]
  using Keys =
      Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>,
                 Eigen::Aligned64, Eigen::OuterStride<>>;

  static constexpr index_t kBlockQueries = 192;  // a multiple of every register block of Eigen
  static constexpr index_t kBlockRanks = 256;    // scores of a pair of blocks fit in a core's cache

  /// A block of queries: neighbouring rows of the batch with the query heads of one KV head. Query
  /// n is row n / group, head n % group.
  struct Task {
    index_t item, head, first, rows;
  };

  void attend(const Task& task, int thread) {
    const index_t queries = task.rows * shape_.group;
    const index_t k_stride = padded<float>(shape_.k_dim);
    const index_t v_stride = padded<float>(shape_.v_dim);
    const index_t lead = padded<float>(queries);
    const index_t floats = lead * (shape_.k_dim + kBlockRanks + shape_.v_dim + 4) +
                           kBlockRanks * (k_stride + v_stride) + padded<float>(task.rows) * 2;
    Carver carver(context_.of_thread(thread).reserve(floats * 4));
    const Eigen::OuterStride<> column(lead);
    Columns q(carver.take<float>(lead * shape_.k_dim), queries, shape_.k_dim, column);
    Columns sum(carver.take<float>(lead * shape_.v_dim), queries, shape_.v_dim, column);
    Softmax softmax{Queries(carver.take<float>(queries), queries),
                    Queries(carver.take<float>(queries), queries),
                    Queries(carver.take<float>(queries), queries)};
    index_t* const visible = carver.take<index_t>(task.rows);
    float* const k = carver.take<float>(kBlockRanks * k_stride);
    float* const v = carver.take<float>(kBlockRanks * v_stride);
    float* const weights = carver.take<float>(lead * kBlockRanks);

    const KVRows rows(a_.kv, task.item, a_.batch->request.data[task.item], task.head);
    for (index_t r = 0; r < task.rows; ++r) {
      visible[r] = rows.visible(a_.batch->position.data[task.first + r]);
    }
    load_queries(task, q);
    sum.setZero();
    softmax.largest.setConstant(std::numeric_limits<float>::lowest());
    softmax.weight.setZero();
    const index_t last = visible[task.rows - 1];
    for (index_t begin = 0; begin < last; begin += kBlockRanks) {
      const index_t count = std::min(kBlockRanks, last - begin);
      load_rows(rows, begin, count, k, v);
      Columns w(weights, queries, count, column);
      w.noalias() = q * Keys(k, count, shape_.k_dim, Eigen::OuterStride<>(k_stride)).transpose();
      hide(task, visible, begin, -std::numeric_limits<float>::infinity(), w);
      update(softmax, w, sum);
      hide(task, visible, begin, 0, w);
      const Keys values(v, count, shape_.v_dim, Eigen::OuterStride<>(v_stride));
      if (visible[0] >= begin + count || values.allFinite()) {
        sum.noalias() += w * values;
      } else {
        add_seen(task, visible, begin, w, values, sum);
      }
    }
    store(task, softmax, sum);
  }

  /// Rows [begin, begin + count) as floats.
  void load_rows(const KVRows& rows, index_t begin, index_t count, float* k, float* v) const {
    std::array<const std::byte*, kBlockRanks> from;
    rows.find(begin, count, from.data());
    for (index_t i = 0; i < count; ++i) {
      const std::byte* const row = from[static_cast<std::size_t>(i)];
      to_floats(reinterpret_cast<const T*>(row), shape_.k_dim, k + i * padded<float>(shape_.k_dim));
      to_floats(reinterpret_cast<const T*>(row + a_.kv.v_offset), shape_.v_dim,
                v + i * padded<float>(shape_.v_dim));
    }
  }

  struct Softmax {
    Queries largest, weight, shrink;
  };

  /// Queries, scaled, one a row of q.
  void load_queries(const Task& task, Columns& q) const {
    for (index_t n = 0; n < q.rows(); ++n) {
      const float* const from = row<const float>(a_.q, task.first + n / shape_.group,
                                                 task.head * shape_.group + n % shape_.group);
      for (index_t d = 0; d < shape_.k_dim; ++d) q(n, d) = from[d] * shape_.scale;
    }
  }

  /// Sets what a query must not see. Positions ascend, so a key is hidden from the first ones.
  void hide(const Task& task, const index_t* visible, index_t begin, float value,
            Columns& w) const {
    index_t hidden_rows = 0;
    for (index_t j = std::max(visible[0] - begin, index_t{0}); j < w.cols(); ++j) {
      while (hidden_rows < task.rows && visible[hidden_rows] <= begin + j) ++hidden_rows;
      w.col(j).head(hidden_rows * shape_.group).setConstant(value);
    }
  }

  /// sum += w values, row by row: a hidden value that is infinite must not meet its weight, 0.
  void add_seen(const Task& task, const index_t* visible, index_t begin, const Columns& w,
                const Keys& values, Columns& sum) const {
    for (index_t r = 0; r < task.rows; ++r) {
      const index_t seen = std::clamp(visible[r] - begin, index_t{0}, w.cols());
      sum.middleRows(r * shape_.group, shape_.group).noalias() +=
          w.middleRows(r * shape_.group, shape_.group).leftCols(seen) * values.topRows(seen);
    }
  }

  /// Scores to weights under the largest score so far; what was summed before shrinks with it.
  static void update(Softmax& s, Columns& w, Columns& sum) {
    s.shrink = s.largest;
    for (index_t j = 0; j < w.cols(); ++j) s.largest = s.largest.max(w.col(j).array());
    s.shrink = (s.shrink - s.largest).exp();
    s.weight *= s.shrink;
    for (index_t j = 0; j < sum.cols(); ++j) sum.col(j).array() *= s.shrink;
    for (index_t j = 0; j < w.cols(); ++j) {
      w.col(j).array() = (w.col(j).array() - s.largest).exp();
      s.weight += w.col(j).array();
    }
  }

  void store(const Task& task, const Softmax& s, const Columns& sum) const {
    for (index_t n = 0; n < sum.rows(); ++n) {
      const float inverse = s.weight[n] > 0 ? 1 / s.weight[n] : 0;
      float* const to =
          row(a_.out, task.first + n / shape_.group, task.head * shape_.group + n % shape_.group);
      for (index_t d = 0; d < shape_.v_dim; ++d) to[d] = sum(n, d) * inverse;
    }
  }

  const AttendArgs& a_;
  AttendShape shape_;
  Context& context_;
  index_t block_rows_;
};

}  // namespace spectx::cpu
