// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "batches.hpp"
#include "kv_pages.hpp"
#include "selection_reference.hpp"
#include "shapes.hpp"

namespace spectx::test {

/// Queries and keys of a retrieval head over a batch: what score and coverage read.
class HeadCase {
 public:
  static constexpr float kScale = 0.125F;

  HeadCase(Backend& backend, HeadsShape heads, DType dtype, index_t requests, index_t tokens,
           const std::vector<ScheduledItem>& items, DType activations = DType::f32)
      : backend_(backend),
        heads_(heads),
        tokens_(tokens),
        pages_(backend, {.requests = requests,
                         .kv_heads = heads.kv_heads,
                         .k_dim = heads.k_dim,
                         .v_dim = 0,
                         .rows = tokens,
                         .dtype = dtype}),
        batch_(backend, items),
        q_(backend, activations, batch_.num_leads(), heads.query_heads * heads.k_dim,
           Random(1).normal(batch_.num_leads() * heads.query_heads * heads.k_dim), Padding{3, 1}),
        queries_(q_.rounded()),
        log_sum_(backend, DType::f32, batch_.num_leads(), heads.query_heads, Padding{2, 1}),
        scores_(backend, DType::f32, static_cast<index_t>(items.size()), heads.kv_heads * tokens) {
    Random random(2);
    for (index_t i = 0; i < requests * heads.kv_heads * tokens; ++i) {
      const index_t head = i / tokens % heads.kv_heads;
      // Token 0 has no key: its row stays NaN.
      if (i % tokens != 0)
        pages_.set(i / tokens / heads.kv_heads, head, i % tokens, random.normal(heads.k_dim), {});
    }
    pages_.upload();
  }

  /// Replaces a key.
  void set_key(index_t request, index_t head, index_t token, float value) {
    pages_.set(request, head, token, std::vector<float>(at(heads_.k_dim), value), {});
    pages_.upload();
  }

  void score(GroupReduce reduce) {
    run_on(backend_, [&](StreamView stream) {
      backend_.score({.q = q_.heads(heads_.query_heads),
                      .keys = pages_.view(),
                      .batch = batch_.get(),
                      .reduce = reduce,
                      .scale = kScale,
                      .log_sum = log_sum_.view(),
                      .scores = scores_.heads(heads_.kv_heads)},
                     stream);
    });
  }

  /// What score wrote of an item: tokens [0, first] of one KV head.
  std::vector<float> scores(std::size_t item, index_t head) const {
    const std::vector<float> all = scores_.read();
    const auto begin =
        all.begin() + (static_cast<index_t>(item) * heads_.kv_heads + head) * tokens_;
    return {begin, begin + batch_.items()[item].first + 1};
  }
  /// Of one lead and the group of one KV head.
  std::vector<float> log_sums(index_t lead, index_t head) const {
    const std::vector<float> all = log_sum_.read();
    const auto begin = all.begin() + lead * heads_.query_heads + head * group();
    return {begin, begin + group()};
  }

  ScoreReference reference(std::size_t item, index_t head, GroupReduce reduce) const {
    return {queries_of(item, head), keys_of(item, head), static_cast<double>(kScale), reduce};
  }
  /// [leads][group]
  std::vector<std::vector<std::vector<float>>> queries_of(std::size_t item, index_t head) const {
    std::vector<std::vector<std::vector<float>>> leads;
    for (index_t lead = first_lead(item); lead < first_lead(item + 1); ++lead) {
      leads.emplace_back();
      for (index_t g = 0; g < group(); ++g) {
        const auto begin =
            queries_.begin() + (lead * heads_.query_heads + head * group() + g) * heads_.k_dim;
        leads.back().emplace_back(begin, begin + heads_.k_dim);
      }
    }
    return leads;
  }
  /// Tokens [0, first].
  std::vector<std::vector<float>> keys_of(std::size_t item, index_t head) const {
    std::vector<std::vector<float>> keys;
    for (index_t n = 0; n <= batch_.items()[item].first; ++n) {
      keys.push_back(pages_.get(batch_.items()[item].request.value, head, n));
    }
    return keys;
  }

  index_t first_lead(std::size_t item) const {
    index_t leads = 0;
    for (std::size_t i = 0; i < item; ++i) {
      const ScheduledItem& s = batch_.items()[i];
      leads += s.selects ? s.rows : std::min(s.rows, index_t{1});
    }
    return leads;
  }
  index_t group() const { return heads_.query_heads / heads_.kv_heads; }
  Backend& backend() { return backend_; }
  const Batch* batch() const { return batch_.get(); }
  KVView keys() const { return pages_.view(); }
  TensorView q() const { return q_.heads(heads_.query_heads); }
  const DeviceMatrix& log_sum() const { return log_sum_; }
  const DeviceMatrix& all_scores() const { return scores_; }

 private:
  Backend& backend_;
  HeadsShape heads_;
  index_t tokens_;
  KVPages pages_;
  BatchData batch_;
  DeviceMatrix q_;
  std::vector<float> queries_;
  DeviceMatrix log_sum_, scores_;
};

}  // namespace spectx::test
