// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/detail/check_pool_args.hpp"
#include "spectx/detail/check_selection_args.hpp"
#include "spectx/detail/check_views.hpp"

namespace spectx {

// check_args(args, limits), one overload an operation: what every backend calls first, before it
// launches or changes anything. Types, sizes, strides and addresses of the arguments fit together,
// as far as they can be known without reading device memory: InvalidArgument that names the
// operation; Unsupported for what this backend has no kernel for. Of Batch, KVView and KVPoolView,
// which a KVPool makes, that they are complete. Allocates nothing.

inline void check_args(const EmbedArgs& a, const OperationLimits& limits) {
  using namespace detail;
  expects(is_tensor(a.table, 2) && is_written(a.out, 2) && a.table.shape[1] == a.out.shape[1] &&
              names_rows(a.row_index, a.out.shape[0], a.tokens),
          "embed: table must be [vocabulary, hidden], out [rows, hidden], tokens or row_index "
          "[rows]");
  supports(is_row_type(a.table.dtype) && is_activation(a.out.dtype, limits),
           "embed: this backend has no kernel for the types of table and out");
}

inline void check_args(const MatmulArgs& a, const OperationLimits& limits) {
  using namespace detail;
  expects(is_tensor(a.x, 2) && is_tensor(a.w, 2) && is_written(a.out, 2) &&
              a.x.shape[1] == a.w.shape[1] && a.out.shape[0] == a.x.shape[0] &&
              a.out.shape[1] == a.w.shape[0] && a.out.dtype == a.x.dtype,
          "matmul: x must be [rows, in], w [out, in], out [rows, out] of x's type");
  expects(a.x.strides[0] >= a.x.shape[1] && a.w.strides[0] >= a.w.shape[1] &&
              a.out.strides[0] >= a.out.shape[1],
          "matmul: the rows of x, w and out must not overlap");
  supports(is_row_type(a.w.dtype) && is_activation(a.x.dtype, limits) &&
               (a.x.dtype == DType::f32 || a.x.dtype == a.w.dtype),
           "matmul: this backend has no kernel for the types of x and w");
}

inline void check_args(const RmsNormArgs& a, const OperationLimits& limits) {
  using namespace detail;
  const int rank = a.x.rank == 3 ? 3 : 2;
  expects(is_tensor(a.x, rank) && is_written(a.out, rank) && a.out.shape == a.x.shape &&
              a.out.dtype == a.x.dtype,
          "rms_norm: x and out must be [rows, dim] or [rows, heads, dim], alike");
  expects(is_tensor(a.weight, 1) && a.weight.shape[0] == a.x.shape[rank == 3 ? 2 : 1],
          "rms_norm: weight must be [dim]");
  supports(is_row_type(a.weight.dtype) && is_activation(a.x.dtype, limits),
           "rms_norm: this backend has no kernel for the types of x and weight");
}

inline void check_args(const RopeArgs& a, const OperationLimits& limits) {
  using namespace detail;
  expects(is_written(a.x, 3) && a.x.shape[2] % 2 == 0 && a.frequency.size == a.x.shape[2] / 2 &&
              holds(a.frequency, a.frequency.size),
          "rope: x must be [rows, heads, dim], frequency [dim / 2]");
  expects(names_rows(a.row_index, a.x.shape[0], a.position),
          "rope: position or row_index must be [rows]");
  supports(is_activation(a.x.dtype, limits), "rope: this backend has no kernel for the type of x");
  supports(a.x.shape[2] <= limits.most_rope_dim,
           "rope: this backend has no kernel for heads so wide");
}

namespace detail {

inline bool are_alike(const TensorView& a, const TensorView& b, const TensorView& out) noexcept {
  return is_tensor(a, 2) && is_tensor(b, 2) && is_written(out, 2) && a.shape == out.shape &&
         b.shape == out.shape && a.dtype == out.dtype && b.dtype == out.dtype;
}

}  // namespace detail

inline void check_args(const SwigluArgs& a, const OperationLimits& limits) {
  expects(detail::are_alike(a.gate, a.up, a.out),
          "swiglu: gate, up and out must be [rows, dim] of one type");
  detail::supports(detail::is_activation(a.out.dtype, limits),
                   "swiglu: this backend has no kernel for the type");
}

inline void check_args(const AddArgs& a, const OperationLimits& limits) {
  expects(detail::are_alike(a.a, a.b, a.out), "add: a, b and out must be [rows, dim] of one type");
  detail::supports(detail::is_activation(a.out.dtype, limits),
                   "add: this backend has no kernel for the type");
}

inline void check_args(const ArgmaxArgs& a, const OperationLimits& limits) {
  using namespace detail;
  expects(is_tensor(a.logits, 2) && a.logits.shape[1] > 0 && holds(a.out, a.logits.shape[0]),
          "argmax: logits must be [rows, vocabulary], out [rows]");
  supports(is_activation(a.logits.dtype, limits),
           "argmax: this backend has no kernel for the type of logits");
}

inline void check_args(const AppendRowsArgs& a, const OperationLimits& limits) {
  using namespace detail;
  expects(is_batch(a.batch), "append_rows: batch must be what KVPool::schedule made");
  expects(is_kv_view(a.to, a.k.shape[0]), "append_rows: to must be what KVPool made");
  expects(is_tensor(a.k, 3) && a.k.shape[1] == a.to.kv_heads && a.k.shape[2] == a.to.k_dim &&
              names_rows(a.row_index, a.k.shape[0], a.batch->item),
          "append_rows: k must be [rows, kv_heads, k_dim], rows or row_index of the batch");
  expects(
      !a.v || (is_tensor(a.v, 3) && a.v.shape[0] == a.k.shape[0] && a.v.shape[1] == a.to.kv_heads &&
               a.v.shape[2] == a.to.v_dim && a.v.dtype == a.k.dtype),
      "append_rows: v must be [rows, kv_heads, v_dim] of k's type");
  expects(a.max_length >= 0 && a.max_length <= kMostSize,
          "append_rows: max_length must be in 0 .. 2^31 - 1");
  supports(is_row_type(a.to.dtype) && is_activation(a.k.dtype, limits),
           "append_rows: this backend has no kernel for the types of k and the rows");
}

inline void check_args(const AttendArgs& a, const OperationLimits& limits) {
  using namespace detail;
  expects(is_batch(a.batch), "attend: batch must be what KVPool::schedule made");
  expects(is_kv_view(a.kv, num_items(*a.batch)) && has_ids(a.kv) && a.kv.v_dim > 0,
          "attend: kv must be what KVPool or PrefetchPipeline made");
  expects(is_tensor(a.q, 3) && a.q.shape[0] >= a.batch->num_rows && a.q.shape[1] > 0 &&
              a.q.shape[1] % a.kv.kv_heads == 0 && a.q.shape[2] == a.kv.k_dim,
          "attend: q must be [rows, query_heads, k_dim]");
  expects(is_written(a.out, 3) && a.out.shape[0] >= a.batch->num_rows &&
              a.out.shape[1] == a.q.shape[1] && a.out.shape[2] == a.kv.v_dim &&
              a.out.dtype == a.q.dtype,
          "attend: out must be [rows, query_heads, v_dim] of q's type");
  supports(is_row_type(a.kv.dtype) && is_activation(a.q.dtype, limits),
           "attend: this backend has no kernel for the types of q and the rows");
  supports(a.kv.k_dim <= limits.most_head_dim && a.kv.v_dim <= limits.most_head_dim,
           "attend: this backend has no kernel for heads so wide");
}

}  // namespace spectx
