// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/batch.hpp"
#include "spectx/kv_view.hpp"
#include "spectx/memory.hpp"
#include "spectx/model_shape.hpp"
#include "spectx/selection_args.hpp"
#include "spectx/stream.hpp"
#include "spectx/trace.hpp"

namespace spectx {

// Arguments of the operations. Activations are of Backend::compute_dtype, weights f32, f16 or bf16.
// `row_index`, where an operation has one: row i of x stands for row row_index[i] of the batch, and
// is left out if that is negative; empty: row i is row i.

/// out[i] = table[tokens[row_index[i]]]
struct EmbedArgs {
  TensorView table;                  // [vocabulary, hidden]
  Array<const std::int32_t> tokens;  // a token outside the table gives a row of zeros
  Array<const std::int32_t> row_index{};
  TensorView out;  // [rows, hidden]
};
/// out = x w^T + beta out
struct MatmulArgs {
  TensorView x;    // [rows, in]
  TensorView w;    // [out, in]
  TensorView out;  // [rows, out]
  float beta = 0;
};
/// out = x / sqrt(mean(x^2) + eps) * weight
struct RmsNormArgs {
  TensorView x;       // [rows, dim] or [rows, heads, dim]
  TensorView weight;  // [dim]
  TensorView out;     // of x's shape, may be x
  float eps = 1e-5F;
};
/// Rotates (x[i], x[i + dim / 2]) by (position + position_offset) * frequency[i], in place.
struct RopeArgs {
  TensorView x;                        // [rows, heads, dim]
  Array<const std::int32_t> position;  // of the batch
  Array<const std::int32_t> row_index{};
  Array<const float> frequency;  // [dim / 2], of rope_frequencies()
  float magnitude = 1;           // multiplies cos and sin
  index_t position_offset = 0;
};
/// out = silu(gate) * up
struct SwigluArgs {
  TensorView gate, up, out;  // [rows, dim]; out may be gate or up
};
/// out = a + b
struct AddArgs {
  TensorView a, b, out;  // [rows, dim]; out may be a or b; b may be a vector, repeated()
};
/// out[i] = the lowest index of the largest logit of row i; NaN ranks below every number.
struct ArgmaxArgs {
  TensorView logits;        // [rows, vocabulary]
  Array<std::int32_t> out;  // [rows]
};
/// Writes K and V where the step's rows live: by token into pages where the group is resident, by
/// token into staging where an item reads everything of an offloaded group, else into the slots
/// that update_slots gave them.
struct AppendRowsArgs {
  TensorView k;    // [rows, kv_heads, k_dim]
  TensorView v{};  // [rows, kv_heads, v_dim]; absent: keys only
  const Batch* batch = nullptr;
  Array<const std::int32_t> row_index{};
  KVView to;
  const std::int32_t* slot_of_token = nullptr;  // [max_requests, kv_heads, max_length]
  index_t max_length = 0;
};

/// Compares the selection with the slot map, for the items that select: every id gets a slot. The
/// i-th missing id in ascending order takes the i-th slot of (free ones ascending, then the oldest
/// by last_used, ties to the lower slot). Slots of this selection and, in a request with offloaded
/// groups, rows that are not durable are never taken. The step's own rows get a slot and are no
/// misses. Tokens >= the item's length, left by a batch that was not ended, are forgotten first.
/// Ticks the clock.
struct UpdateSlotsArgs {
  const Batch* batch = nullptr;
  Selection selection;
  KVPoolView pool;
  StepLists lists;  // written
};
/// Forgets the slots of tokens >= first of a request.
struct ForgetSlotsArgs {
  KVPoolView pool;
  RequestId request;
  index_t first = 0;
};
/// Copies the misses of one group from the host tier into their slots: some of its layers.
struct GatherRowsArgs {
  const Batch* batch = nullptr;
  StepLists lists;
  KVPoolView pool;
  index_t group = 0;
  int max_blocks = 16;
  index_t first_layer = 0;  // in the group
  index_t num_layers = 0;   // 0: all from first_layer on

  index_t layers() const noexcept {
    return num_layers > 0 ? num_layers : pool.layers_of(group) - first_layer;
  }
};
/// Write-through, for the items that select in requests with offloaded groups: where one is due,
/// copies rows [durable, length) from slots to the host tier, then advances durable.
struct ScatterRowsArgs {
  const Batch* batch = nullptr;
  KVPoolView pool;
  index_t write_batch = 32;
};
/// Whether the rows [durable, length) of a request are written through: every write_batch tokens,
/// at places of its own, so that requests which grow side by side take turns. In a lossy tier all
/// have the same: what may be evicted, and comes back with a loss, does not depend on the request's
/// number. Fewer than write_batch stay.
constexpr bool is_write_due(const HostRun& run, RequestId request, index_t durable, index_t length,
                            index_t write_batch) noexcept {
  const index_t place = run.is_lossy ? 0 : request.value % write_batch;
  return (length + place) / write_batch > (durable + place) / write_batch;
}

/// The pages of one group of one request, and how rows lie in them: device pages by token or by
/// slot, staging pages by token (of one layer alone), host pages by token.
struct RowPlace {
  enum class Kind : std::uint8_t { tokens, slots, staging, host };
  Kind kind = Kind::tokens;
  std::byte* const* pages = nullptr;  // device array of page addresses
};
/// Copies rows [first, last) of one group of one request between two places; a place of slots holds
/// only the tokens that the slot map names.
struct MoveRowsArgs {
  KVPoolView pool;
  RequestId request;
  index_t group = 0;
  RowPlace from, to;
  index_t first = 0, last = 0;  // tokens
  index_t layer = -1;           // in the group: only this one, as staging has it; -1: all
};
/// out = softmax(q k^T scale) v over the rows of `kv` that the item reads, causal. Rows are walked
/// by rank; splits are fixed multiples of a constant in rank and combine in ascending order.
struct AttendArgs {
  TensorView q;  // [rows, query_heads, k_dim]
  KVView kv;
  const Batch* batch = nullptr;
  TensorView out;   // [rows, query_heads, v_dim]
  float scale = 0;  // 0: 1 / sqrt(k_dim)
};

struct StreamOptions {
  bool high_priority = false;
};

/// The one seam between components and hardware. Operations are asynchronous on `stream`. Each
/// first calls check_args(), so that wrong arguments are InvalidArgument or Unsupported, named
/// after the operation, before anything has run. Their scratch memory grows at the first call that
/// needs more (OutOfMemory) and is kept: shapes seen before allocate nothing. Not thread-safe.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual void embed(const EmbedArgs&, StreamView) = 0;
  virtual void matmul(const MatmulArgs&, StreamView) = 0;
  virtual void rms_norm(const RmsNormArgs&, StreamView) = 0;
  virtual void rope(const RopeArgs&, StreamView) = 0;
  virtual void swiglu(const SwigluArgs&, StreamView) = 0;
  virtual void add(const AddArgs&, StreamView) = 0;
  virtual void argmax(const ArgmaxArgs&, StreamView) = 0;
  virtual void append_rows(const AppendRowsArgs&, StreamView) = 0;
  virtual void score(const ScoreArgs&, StreamView) = 0;
  virtual void top_k(const TopKArgs&, StreamView) = 0;
  virtual void coverage(const CoverageArgs&, StreamView) = 0;
  virtual void join_heads(const JoinHeadsArgs&, StreamView) = 0;
  virtual void guard(const GuardArgs&, StreamView) = 0;
  virtual void store_ring(const StoreRingArgs&, StreamView) = 0;
  virtual void load_ring(const LoadRingArgs&, StreamView) = 0;
  virtual void update_slots(const UpdateSlotsArgs&, StreamView) = 0;
  virtual void forget_slots(const ForgetSlotsArgs&, StreamView) = 0;
  virtual void gather_rows(const GatherRowsArgs&, StreamView) = 0;
  virtual void scatter_rows(const ScatterRowsArgs&, StreamView) = 0;
  virtual void move_rows(const MoveRowsArgs&, StreamView) = 0;
  virtual void attend(const AttendArgs&, StreamView) = 0;

  virtual Stream make_stream(StreamOptions options = {}) = 0;
  virtual Event make_event() = 0;
  virtual void destroy_stream(void* handle) noexcept = 0;
  virtual void destroy_event(void* handle) noexcept = 0;
  /// Between any two memories. A source in host memory that is not of memories().host is read
  /// before the call returns; captured, all host memory must be of memories().host.
  virtual void copy(void* to, const void* from, index_t bytes, StreamView) = 0;
  virtual void fill(void* to, int byte, index_t bytes, StreamView) = 0;  // device memory
  virtual void record(EventView, StreamView) = 0;
  virtual void wait(StreamView, EventView) = 0;
  virtual bool is_done(EventView) = 0;
  virtual void synchronize(StreamView) = 0;
  /// Work that is put on the stream now is kept in a graph and runs when that is launched, for
  /// other lengths, placements and selections than now. The host began the capture by itself.
  virtual bool is_capturing(StreamView) = 0;
  /// Writes the device's time in nanoseconds when the stream reaches this point.
  virtual void stamp(std::uint64_t* device_ns, StreamView) = 0;
  virtual Memories memories() = 0;
  /// Device memory that the scratch of a loop comes to, at most.
  virtual index_t scratch_bytes(const ScratchShape& shape) const noexcept = 0;
  /// The host's memory is the device's: every group stays resident and there is no host tier.
  virtual bool has_one_memory() const noexcept = 0;
  /// Streams run at the call, so that no transfer can hide behind computation.
  virtual bool runs_at_call() const noexcept = 0;
  /// Type of the activations that go with weights of type `weights`.
  virtual DType compute_dtype(DType weights) const noexcept = 0;
  virtual const TraceSink& trace() const noexcept = 0;
};

inline Stream::~Stream() {
  if (handle_ != nullptr) backend_->destroy_stream(handle_);
}
inline Event::~Event() {
  if (handle_ != nullptr) backend_->destroy_event(handle_);
}

}  // namespace spectx
