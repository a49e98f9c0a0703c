// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "spectx/backend.hpp"
#include "spectx/kv_pool.hpp"
#include "spectx/rope.hpp"

namespace spectx {

/// An EAGLE-3 draft layer, QK only, in device memory; it must outlive the head that reads it. H is
/// the target's hidden size, W the head's own: mostly H.
struct HeadWeights {
  HeadShape shape;
  TensorView fc{};           // [W, features * H]
  TensorView input_norm{};   // [W], of the embedding
  TensorView hidden_norm{};  // [W], of the fused feature
  TensorView q_proj{};       // [query_heads * k_dim, 2 W]
  TensorView k_proj{};       // [kv_heads * k_dim, 2 W]
  TensorView embeddings{};   // [vocabulary, W]; the target's unless the head has its own
  // What only some heads have. Biases are of Backend::compute_dtype.
  TensorView feature_norm{};  // [features * H], before fc: of one hidden state or of all together,
                              // as shape.normed_features says
  TensorView fc_bias{};       // [W]
  TensorView q_bias{};        // [query_heads * k_dim]
  TensorView k_bias{};        // [kv_heads * k_dim]
  TensorView q_norm{};        // [k_dim], of every head before RoPE
  TensorView k_norm{};        // [k_dim]
  std::vector<index_t> feature_layers;  // ascending; the residual stream that enters these layers
  Rope rope;
  std::vector<float> rope_divisors{};  // [k_dim / 2] of rope's frequencies; empty: none
  float norm_eps = 1e-5F;
  GroupReduce reduce = GroupReduce::max;  // what it was trained for
};

/// What shares a selection: every KV head has its own, or all KV heads of a request have one.
enum class SelectionLevel : std::uint8_t { head, batch };

struct HeadConfig {
  /// Over the query heads of a KV head, then, at batch level, over the KV heads; empty: as the
  /// weights say
  std::optional<GroupReduce> reduce{};
  SelectionLevel level = SelectionLevel::head;
  bool measures_coverage = true;  // false: only where a guard needs it; else it is empty
  /// [kv_heads of the target] the head's KV head that serves each; empty: spread evenly
  std::vector<std::int32_t> head_of_kv_head{};
};

/// Chooses the rows of a step before layer 0 (SpeContext, section 4). Entry of row p: (token p, the
/// target's feature of row p - 1), RoPE position p - 1; row 0 has none and is a sink. Its keys are
/// a layer of `pool`, K only and always resident, so that rewind, park and close need no second
/// call. Not thread-safe.
class RetrievalHead {
 public:
  /// Allocates from both memories. Throws InvalidArgument that names the weight that does not fit
  /// the target, OutOfMemory.
  RetrievalHead(Backend& backend, KVPool& pool, const HeadWeights& weights,
                const HeadConfig& config, Memories memories);
  RetrievalHead(RetrievalHead&&) = delete;

  /// Enters the keys of the batch's first rows and chooses what the items that select read; all
  /// others read everything. Call it in every step: it is what keeps the keys complete, and it may
  /// be called again for the same rows. Async on `stream`; valid until the next call. Throws
  /// InvalidArgument if a request was rewound to where its feature is no longer kept: rerun its
  /// last token, which keeps its key, as a dense item first.
  const Selection& select(const Batch& batch, StreamView stream);

  /// Call with the residual stream `hidden` [rows, H] that enters each layer, of the backend's
  /// compute dtype of the head's weights; does nothing for layers that are not tapped. Async on
  /// `stream`.
  void observe(index_t layer, const Batch& batch, TensorView hidden, StreamView stream);

  /// How the selections from now on are made; a new head's rule is the plan's. Throws
  /// InvalidArgument for more rows than the plan's largest budget, for other sinks or another
  /// window. A captured step keeps the rule that it was captured with.
  void set_rule(const SelectionConfig& rule);
  /// The same rule with another budget.
  void set_budget(index_t budget);

  /// Whether a step of the batch can be captured in a graph, and replayed: the feature before every
  /// item's first row is kept. A request's first step and one after a long rewind are run.
  bool can_replay(const Batch& batch) const;

  /// Before the launch of a graph that holds select and observe. Host work alone. Throws
  /// InvalidArgument (nothing changed) for a batch that cannot be replayed.
  void begin_replay(const Batch& batch);

  /// Whether a score was ever NaN (broken weights or features), of the steps that have arrived at
  /// the host; never waits.
  bool saw_nan() const noexcept {
    return *reinterpret_cast<const volatile std::int32_t*>(host_memory_.data()) != 0;
  }
  const HeadWeights& weights() const noexcept { return weights_; }
  const SelectionConfig& rule() const noexcept { return rule_; }
  GroupReduce reduce() const noexcept { return config_.reduce.value_or(weights_.reduce); }
  /// Device bytes of this head, its weights and keys excluded.
  index_t device_bytes() const noexcept { return memory_.bytes(); }

 private:
  /// Features [begin, end) of a request are in the ring.
  struct Kept {
    index_t begin = 0, end = 0;
  };

  /// What makes queries or keys of an entry.
  struct Projection {
    TensorView weight, bias, norm;
    index_t heads = 0;
  };

  void check_weights() const;
  void check_optional_weights() const;
  void carve();
  void upload_constants(StreamView stream);
  bool is_fed(const ScheduledItem& item) const;
  void keep(const Batch& batch);
  Array<const std::int32_t> fed_leads(const Batch& batch, StreamView stream);
  void enter_leads(const Batch& batch, StreamView stream);
  void enter_followers(const Batch& batch, StreamView stream);
  void fuse(index_t place, TensorView hidden, StreamView stream);
  void choose(const Batch& batch, TensorView queries, StreamView stream);
  void guard(const Batch& batch, index_t rung, StreamView stream);
  void project_keys(TensorView input, const Batch& batch, Array<const std::int32_t> row_index,
                    StreamView stream);
  void project(const Projection& by, TensorView input, const Batch& batch,
               Array<const std::int32_t> row_index, TensorView out, StreamView stream);
  TensorView rows_of(TensorView t, index_t count) const { return rows(t, 0, count); }

  Backend& backend_;
  KVPool& pool_;
  HeadWeights weights_;
  HeadConfig config_;
  SelectionConfig rule_;
  HeadLayout layout_;
  DType compute_;
  Buffer memory_;
  Buffer host_memory_;     // [1] int32: the NaN flag of the steps that have arrived
  TensorView features_{};  // [max_step_rows, normed_features * H] where they are normalised
  TensorView fused_{};     // [max_step_rows, W] fc of the features observed in this step
  TensorView ring_{};      // [max_requests, kRingRows, W] fused features of the last rows
  TensorView input_{};     // [max_step_rows, 2 W]
  TensorView queries_{};   // [max_step_rows, query_heads * k_dim]
  TensorView keys_{};      // [max_step_rows, kv_heads * k_dim]
  TensorView log_sum_{};   // [max_step_rows, query_heads]
  TensorView scores_{};    // [max_requests, kv_heads, max_length]
  TensorView zeros_{};     // [H] where features are normalised together
  Array<float> frequency_{};
  Array<std::int32_t> head_of_kv_head_{};
  Array<std::int32_t> scores_of_kv_head_{};  // the same, or 0 where all share a selection
  Array<std::int32_t> budgets_{};            // [max_requests] of the guard's next rung
  Array<std::int32_t> rungs_{};              // [max_requests] that a request read last
  GuardOutcome* outcomes_ = nullptr;         // [max_requests]
  Array<std::int32_t> fed_lead_row_{};     // [max_step_rows] lead_row, -1 where no feature is kept
  std::vector<std::int32_t> fed_on_host_;  // the same
  std::int32_t* nan_flag_ = nullptr;       // device
  float magnitude_ = 1;
  float scale_ = 1;
  Selection selection_;
  std::vector<Kept> kept_;  // [max_requests]
};

}  // namespace spectx

#include "spectx/detail/retrieval_head.hpp"
#include "spectx/detail/retrieval_head_guard.hpp"
#include "spectx/detail/retrieval_head_setup.hpp"
