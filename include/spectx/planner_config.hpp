// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <optional>

#include "spectx/backend.hpp"
#include "spectx/head_layout.hpp"
#include "spectx/pool_layout.hpp"

namespace spectx {

/// How place() decides when a group leaves. `exact`: by the bytes that this library allocates.
/// `paper`: by the threshold algorithm of SpeContext as printed; `paper_corrected`: with the factor
/// that its numerator lacks. A pool's sizes and admission are exact in all three.
enum class PlannerModel : std::uint8_t { exact, paper, paper_corrected };

struct PlannerConfig {
  PlannerModel model = PlannerModel::exact;
  index_t device_bytes = 0;           // cap of the device's memory
  index_t host_bytes = 0;             // cap of the host tier; see host_memory_limit()
  index_t model_bytes = 0;            // weights and activations of the model itself, on the device
  index_t head_weight_bytes = 0;      // of the retrieval head, on the device
  index_t lent_bytes = 0;             // of a host engine's own paged cache, on the device, where a
                                      // PageLender lends pages of it; 0: the pool has its own
  bool lends_whole_requests = false;  // in blocks that have a page of every group, in their order
  index_t scratch_bytes = 0;          // of the operations, on the device: for_backend() sets it
  bool has_one_memory = false;        // host and device memory are the same: no host tier; likewise
  bool force_host_tier = false;       // have one even where everything fits on the device
  std::optional<DType> host_dtype{};  // f8_e4m3 or i8; none: the rows' own type, without loss
  SelectionConfig selection;
  HeadShape head;
  DType compute_dtype = DType::f32;  // of the head's activations; likewise
  index_t max_requests = 32;
  index_t max_length = 8192;    // tokens of one request
  index_t max_step_rows = 544;  // rows of one batch: prompt chunk + decode rows
  index_t page_rows = 64;
  PageOrder page_order = PageOrder::heads;
  index_t group_layers = 0;  // with a host tier; 0: so many that a miss is one run of 2 KiB
  double hot_buffer = 2;     // device slots of an offloaded group, as a multiple of the budget; at
                             // least max_budget
  index_t write_batch = 32;
};

/// What Backend::scratch_bytes() is asked for.
inline ScratchShape scratch_shape(const ModelShape& shape, const PlannerConfig& config) {
  return {.requests = config.max_requests,
          .max_length = config.max_length,
          .step_rows = config.max_step_rows,
          .query_heads = std::max(shape.query_heads, config.head.query_heads),
          .head_dim = std::max({shape.k_dim, shape.v_dim, config.head.k_dim}),
          .has_half_rows = dtype_bytes(shape.dtype) == 2};
}

/// The configuration for loops on this backend: with the fields that are the backend's to say. What
/// plans for it begins with this, the rest of `config` filled in.
/// @param weights  type of the retrieval head's weights; without a head of the model's
inline PlannerConfig for_backend(const Backend& backend, const ModelShape& shape, DType weights,
                                 PlannerConfig config) {
  config.scratch_bytes = backend.scratch_bytes(scratch_shape(shape, config));
  config.has_one_memory = backend.has_one_memory();
  config.compute_dtype = backend.compute_dtype(weights);
  return config;
}

namespace detail {

inline constexpr index_t kMaxDimension = index_t{1} << 20;  // heads, layers, head dims
inline constexpr index_t kMaxBytes = index_t{1} << 60;
inline constexpr index_t kMaxRows = std::numeric_limits<std::int32_t>::max();  // ids are int32

inline void check_dimensions(const ModelShape& s, const HeadShape& head) {
  const auto in_range = [](index_t n) { return n >= 0 && n <= kMaxDimension; };
  expects(in_range(s.layers), "ModelShape: layers must be in 1 .. 2^20");
  expects(in_range(s.query_heads), "ModelShape: query_heads must be in 1 .. 2^20");
  expects(in_range(s.kv_heads), "ModelShape: kv_heads must be in 1 .. 2^20");
  expects(in_range(s.k_dim), "ModelShape: k_dim must be in 1 .. 2^20");
  expects(in_range(s.v_dim), "ModelShape: v_dim must be in 1 .. 2^20");
  expects(in_range(s.hidden), "ModelShape: hidden must be in 1 .. 2^20");
  check_shape(s);
  expects(in_range(head.kv_heads), "HeadShape: kv_heads must be in 0 .. 2^20");
  if (head.kv_heads == 0) return;
  expects(
      head.query_heads > 0 && in_range(head.query_heads) && head.query_heads % head.kv_heads == 0,
      "HeadShape: query_heads must be a positive multiple of kv_heads, at most 2^20");
  expects(head.k_dim > 0 && in_range(head.k_dim) && head.k_dim % 2 == 0,
          "HeadShape: k_dim must be positive and even, at most 2^20");
  expects(in_range(head.hidden), "HeadShape: hidden must be in 0 .. 2^20");
  expects(in_range(head.normed_features), "HeadShape: normed_features must be in 0 .. 2^20");
}

/// Throws unless every size that follows is far from the end of 64 bits, so that the layouts can
/// multiply without looking.
inline void check_magnitude(const ModelShape& s, const PlannerConfig& c) {
  const auto real = [](index_t n) { return static_cast<double>(n); };
  const double slots =
      std::max(c.hot_buffer * real(c.selection.budget), real(c.selection.largest_budget()));
  expects(slots < real(kMaxRows), "PlannerConfig: hot_buffer * budget must be below 2^31");
  const double rows = real(c.max_length) + slots + 2 * real(c.page_rows);
  const double row = real(s.kv_heads) * real(s.row_bytes());
  const double cache = rows * row * (2 * real(s.layers) + 4);
  const double features =
      (real(c.max_step_rows) + 64) *
      (4 * real(c.head.width(s)) + real(c.head.normed_features) * real(s.hidden) + 64);
  const double keys = real(c.head.query_heads + c.head.kv_heads) * (real(c.head.k_dim) + 2);
  const double bytes = real(c.max_requests) * (cache + 64 * rows * real(s.kv_heads) +
                                               8 * (features + (rows + 64) * keys)) +
                       8 * real(c.max_step_rows) * (keys + 64);
  expects(bytes < 0x1p60, "PlannerConfig: max_requests * max_length is too large for this shape");
}

/// Throws InvalidArgument that names the first field that is wrong.
inline void check_plan(const ModelShape& shape, const PlannerConfig& c) {
  check_dimensions(shape, c.head);
  expects(c.selection.largest_budget() <= kMaxRows && c.selection.sinks <= kMaxRows &&
              c.selection.recent_window <= kMaxRows,
          "SelectionConfig: budget, sinks and recent_window must be below 2^31");
  check_selection(c.selection);
  expects(c.device_bytes > 0 && c.device_bytes <= kMaxBytes,
          "PlannerConfig: device_bytes must be in 1 .. 2^60");
  expects(c.host_bytes >= 0 && c.host_bytes <= kMaxBytes,
          "PlannerConfig: host_bytes must be in 0 .. 2^60");
  expects(c.model_bytes >= 0 && c.model_bytes <= kMaxBytes,
          "PlannerConfig: model_bytes must be in 0 .. 2^60");
  expects(c.head_weight_bytes >= 0 && c.head_weight_bytes <= kMaxBytes,
          "PlannerConfig: head_weight_bytes must be in 0 .. 2^60");
  expects(c.lent_bytes >= 0 && c.lent_bytes <= kMaxBytes,
          "PlannerConfig: lent_bytes must be in 0 .. 2^60");
  expects(!c.lends_whole_requests || c.lent_bytes > 0,
          "PlannerConfig: lends_whole_requests needs lent_bytes");
  expects(c.scratch_bytes >= 0 && c.scratch_bytes <= kMaxBytes,
          "PlannerConfig: scratch_bytes must be in 0 .. 2^60");
  expects(c.max_requests > 0 && c.max_requests <= kMaxDimension,
          "PlannerConfig: max_requests must be in 1 .. 2^20");
  expects(c.max_length > 0 && c.max_length <= kMaxRows,
          "PlannerConfig: max_length must be in 1 .. 2^31 - 1");
  expects(c.max_step_rows > 0 && c.max_step_rows <= kMaxRows,
          "PlannerConfig: max_step_rows must be in 1 .. 2^31 - 1");
  expects(c.page_rows > 0 && c.page_rows <= kMaxDimension,
          "PlannerConfig: page_rows must be in 1 .. 2^20");
  expects(c.group_layers >= 0 && c.group_layers <= kMaxDimension,
          "PlannerConfig: group_layers must be in 0 .. 2^20");
  expects(!is_split(c.page_order) || shape.k_dim == shape.v_dim,
          "PlannerConfig: a page_order with all K before all V needs k_dim == v_dim");
  expects(c.hot_buffer >= 1 && c.hot_buffer <= 1024,
          "PlannerConfig: hot_buffer must be in 1 .. 1024");
  expects(c.write_batch > 0, "PlannerConfig: write_batch must be positive");
  expects(dtype_bytes(c.compute_dtype) >= 2 && c.compute_dtype != DType::i32,
          "PlannerConfig: compute_dtype must be f32, f16 or bf16");
  expects(is_host_dtype(shape.dtype, c.host_dtype.value_or(shape.dtype)),
          "PlannerConfig: host_dtype must be the rows' type, f8_e4m3 or i8");
  expects(!c.has_one_memory || !c.force_host_tier,
          "PlannerConfig: force_host_tier needs two memories");
  const bool may_offload = !c.has_one_memory && (c.host_bytes > 0 || c.force_host_tier);
  expects(!may_offload || c.selection.recent_window > c.write_batch,
          "PlannerConfig: recent_window must be larger than write_batch, which it protects");
  check_magnitude(shape, c);
}

}  // namespace detail
}  // namespace spectx
