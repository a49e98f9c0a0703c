// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <array>
#include <limits>

#include "spectx/cpu/context.hpp"
#include "spectx/cpu/kv_rows.hpp"
#include "spectx/cpu/lanes.hpp"

namespace spectx::cpu {

/// The scores of one item: every key is read once and its products with the
/// queries are kept, then the log sums are known, then the kept products become
/// scores.
template <class T>
class ScoreItem {
 public:
  ScoreItem(const ScoreArgs& a, index_t item, Context& context)
      : a_(a),
        item_(item),
        first_lead_(a.batch->lead_begin.data[item]),
        leads_(a.batch->lead_begin.data[item + 1] - first_lead_),
        request_(a.batch->request.data[item]),
        tokens_(index_t{a.batch->position.data[a.batch->row_begin.data[item]]} + 1),
        blocks_((tokens_ + kBlockTokens - 1) / kBlockTokens),
        query_heads_(a.q.shape[1]),
        group_(query_heads_ / a.keys.kv_heads),
        context_(context) {
    const index_t rows = leads_ * query_heads_;
    Carver carver(
        context.shared().reserve(rows * (padded<float>(tokens_) * 4 + blocks_ * 16) + 64));
    products_ = carver.take<float>(rows * padded<float>(tokens_));
    sums_ = carver.take<Sum>(rows * blocks_);
  }

  void run() {
    const index_t tasks = a_.keys.kv_heads * blocks_;
    const index_t block_bytes = kBlockTokens * a_.keys.k_dim * 4;
    context_.for_ranges(tasks, block_bytes, [&](index_t begin, index_t end, int thread) {
      for (index_t i = begin; i < end; ++i) multiply(i / blocks_, i % blocks_, thread);
    });
    for (index_t lead = 0; lead < leads_; ++lead) {
      for (index_t h = 0; h < query_heads_; ++h) add_up(lead, h);
    }
    context_.for_ranges(tasks, kBlockTokens * 4, [&](index_t begin, index_t end, int thread) {
      for (index_t i = begin; i < end; ++i) reduce(i / blocks_, i % blocks_, thread);
    });
  }

 private:
  using Array = Eigen::Map<Eigen::ArrayXf, Eigen::Aligned64>;

  static constexpr index_t kBlockTokens = 256;
  static constexpr float kNone = -std::numeric_limits<float>::infinity();

  /// sum of exp(product - largest) over a block
  struct Sum {
    float largest, weight;
  };

  float* products(index_t lead, index_t query_head) const noexcept {
    return products_ + (lead * query_heads_ + query_head) * padded<float>(tokens_);
  }
  Sum& sum(index_t lead, index_t query_head, index_t block) const noexcept {
    return sums_[(lead * query_heads_ + query_head) * blocks_ + block];
  }
  float& log_sum(index_t lead, index_t query_head) const noexcept {
    return row(a_.log_sum, first_lead_ + lead)[query_head];
  }

  void multiply(index_t head, index_t block, int thread) {
    const index_t begin = block * kBlockTokens;
    const index_t count = std::min(kBlockTokens, tokens_ - begin);
    const index_t stride = padded<float>(a_.keys.k_dim);
    Carver carver(context_.of_thread(thread).reserve(group_ * stride * 4));
    float* const q = carver.take<float>(group_ * stride);
    std::array<const std::byte*, kBlockTokens + kRowsAhead> rows;
    const index_t found = std::min(kBlockTokens + kRowsAhead, tokens_ - begin);
    KVRows(a_.keys, item_, request_, head).find(begin, found, rows.data());
    std::fill(rows.begin() + found, rows.end(), rows[0]);
    const auto key_at = [&](index_t i) {
      prefetch(rows[static_cast<std::size_t>(i + kRowsAhead)], a_.keys.k_dim * index_t{sizeof(T)});
      return reinterpret_cast<const T*>(rows[static_cast<std::size_t>(i)]);
    };
    for (index_t lead = 0; lead < leads_; ++lead) {
      load_queries(lead, head, q, stride);
      const index_t first_head = head * group_;
      for_query_runs(group_, [&]<index_t kQueries>(index_t first) {
        dot_rows<kQueries, T>({q + first * stride, stride}, count, a_.keys.k_dim, key_at,
                              products(lead, first_head + first) + begin, padded<float>(tokens_));
      });
      for (index_t h = first_head; h < first_head + group_; ++h) {
        sum(lead, h, block) = sum_of(products(lead, h) + begin, count, block == 0);
      }
    }
  }

  /// The queries of one KV head, scaled.
  void load_queries(index_t lead, index_t head, float* q, index_t stride) const noexcept {
    for (index_t g = 0; g < group_; ++g) {
      const float* const from = row<const float>(a_.q, first_lead_ + lead, head * group_ + g);
      for (index_t d = 0; d < a_.keys.k_dim; ++d) q[g * stride + d] = from[d] * a_.scale;
    }
  }

  /// Of the products of a block; token 0 is no candidate, whatever its row
  /// holds.
  static Sum sum_of(float* products, index_t count, bool has_token_0) noexcept {
    Array block(products, count);
    if (has_token_0) block[0] = 0;
    const bool has_nan = std::isnan(block.sum());
    if (has_token_0) block[0] = kNone;
    if (has_nan) return {0, std::numeric_limits<float>::quiet_NaN()};
    const float largest = block.maxCoeff();
    return {largest, largest == kNone ? 0 : (block - largest).exp().sum()};
  }

  /// log_sum, the blocks in ascending order.
  void add_up(index_t lead, index_t query_head) const noexcept {
    const Sum* const sums = &sum(lead, query_head, 0);
    float largest = kNone;
    for (index_t b = 0; b < blocks_; ++b) largest = std::max(largest, sums[b].largest);
    double weight = 0;
    for (index_t b = 0; b < blocks_; ++b) {
      if (sums[b].largest == kNone) continue;
      weight += static_cast<double>(sums[b].weight) *
                std::exp(static_cast<double>(sums[b].largest) - static_cast<double>(largest));
    }
    log_sum(lead, query_head) = static_cast<float>(static_cast<double>(largest) + std::log(weight));
  }

  void reduce(index_t head, index_t block, int thread) {
    const index_t begin = block * kBlockTokens;
    const index_t count = std::min(kBlockTokens, tokens_ - begin);
    Carver carver(context_.of_thread(thread).reserve(kBlockTokens * 4 * 2));
    Array best(carver.take<float>(kBlockTokens), count);
    Array total(carver.take<float>(kBlockTokens), count);
    Eigen::Map<Eigen::ArrayXf> to(row(a_.scores, item_, head) + begin, count);
    for (index_t lead = 0; lead < leads_; ++lead) {
      best.setConstant(kNone);
      for (index_t h = head * group_; h < (head + 1) * group_; ++h) {
        raise(products(lead, h) + begin, log_sum(lead, h), best);
      }
      if (a_.reduce == GroupReduce::mean) {
        total.setZero();
        for (index_t h = head * group_; h < (head + 1) * group_; ++h) {
          total += (Array(products(lead, h) + begin, count) - log_sum(lead, h) - best).exp();
        }
        best += (total / static_cast<float>(group_)).log();
      }
      if (lead == 0) {
        to = best;
      } else {
        raise(best.data(), 0, to);
      }
    }
    if (block == 0) to[0] = kNone;
  }

  /// to = max(to, from - minus); NaN stays.
  template <class To>
  static void raise(const float* from, float minus, To& to) noexcept {
    for (index_t i = 0; i < to.size(); ++i) {
      const float value = from[i] - minus;
      to[i] = value > to[i] || value != value ? value : to[i];
    }
  }

  const ScoreArgs& a_;
  index_t item_, first_lead_, leads_, request_, tokens_, blocks_, query_heads_, group_;
  Context& context_;
  float* products_ = nullptr;  // [leads, query_heads, tokens]
  Sum* sums_ = nullptr;        // [leads, query_heads, blocks]
};

inline void score(const ScoreArgs& a, Context& context) {
  dispatch_dtype(a.keys.dtype, [&]<class T>() {
    for (index_t i = 0; i < num_items(*a.batch); ++i) {
      if (a.batch->selects.data[i] != 0) ScoreItem<T>(a, i, context).run();
    }
  });
}

}  // namespace spectx::cpu
