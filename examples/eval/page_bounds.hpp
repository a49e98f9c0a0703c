// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "eval/host_copy.hpp"
#include "spectx/kv_pool.hpp"

namespace spectx::eval {

/// A selector to compare with, in the manner of Quest (arXiv 2406.10774): the smallest and largest
/// values of the keys of every page of a layer bound the product of a query with any key in it. A
/// page's score is the largest bound over the group's query heads; every layer has its own.
class PageBounds {
 public:
  static constexpr index_t kPageTokens = 16;

  explicit PageBounds(const ModelShape& shape) : shape_(shape) {}

  /// Reads the keys of the first `length` tokens of a request. Blocks.
  void read(const KVPool& pool, RequestId request, index_t length, HostCopy& host);
  /// Adds one token's keys of a layer [kv_heads * k_dim].
  void add(index_t layer, const float* keys);
  /// scores[token] of one KV head for the step's queries of that layer [query_heads * k_dim], of
  /// the tokens so far.
  void score(index_t layer, index_t kv_head, const float* queries, std::span<float> scores) const;

 private:
  struct Bounds {
    std::vector<float> low, high;  // [pages, kv_heads, k_dim]
    index_t tokens = 0;
  };

  ModelShape shape_;
  std::vector<Bounds> layers_;
};

}  // namespace spectx::eval
