// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "scratch.hpp"
#include "spectx/check_args.hpp"

// Every kernel of the backend: one launcher an operation, each in the file of its name. All are
// asynchronous on the stream, allocate nothing beside scratch, and throw CudaError if a launch
// fails. Their arguments have passed check_args() with the limits below.
namespace spectx::cu {

/// What the kernels can do.
inline constexpr OperationLimits kLimits{.most_head_dim = 256, .most_rope_dim = 8192};

/// Shared memory of a block that every device has, sm_86, sm_89 and sm_120 no more.
inline constexpr index_t kMostSharedBytes = index_t{99} << 10;

/// What a launcher needs beside its arguments.
struct Launch {
  cudaStream_t stream;
  Scratch& scratch;      // of the stream
  int multiprocessors;   // of the device
  int shared_bytes;      // that a block may have there
  bool starts_early;     // a kernel may start before the one ahead of it has ended
  bool has_clusters;     // blocks of a kernel may be asked to run side by side
  bool has_warpgroups;   // four warps multiply together, as sm_90a alone can
  std::uint32_t* zeros;  // [kZeroWords] device, of the stream: who counts in them leaves zeros
};

void launch_embed(const EmbedArgs& args, const Launch& on);
/// Up to 8 rows, whatever they are beside: a row's sum does not depend on its neighbours. More rows
/// go in portions of 8: for types that cuBLAS does not mix.
void launch_matmul_few_rows(const MatmulArgs& args, const Launch& on);
void launch_rms_norm(const RmsNormArgs& args, const Launch& on);
void launch_rope(const RopeArgs& args, const Launch& on);
void launch_swiglu(const SwigluArgs& args, const Launch& on);
void launch_add(const AddArgs& args, const Launch& on);
void launch_argmax(const ArgmaxArgs& args, const Launch& on);
void launch_append_rows(const AppendRowsArgs& args, const Launch& on);
void launch_score(const ScoreArgs& args, const Launch& on);
void launch_top_k(const TopKArgs& args, const Launch& on);
void launch_coverage(const CoverageArgs& args, const Launch& on);
void launch_join_heads(const JoinHeadsArgs& args, const Launch& on);
void launch_guard(const GuardArgs& args, const Launch& on);
void launch_store_ring(const StoreRingArgs& args, const Launch& on);
void launch_load_ring(const LoadRingArgs& args, const Launch& on);
void launch_update_slots(const UpdateSlotsArgs& args, const Launch& on);
void launch_forget_slots(const ForgetSlotsArgs& args, const Launch& on);
void launch_gather_rows(const GatherRowsArgs& args, const Launch& on);
void launch_scatter_rows(const ScatterRowsArgs& args, const Launch& on);
void launch_move_rows(const MoveRowsArgs& args, const Launch& on);
void launch_attend(const AttendArgs& args, const Launch& on);
/// *device_ns = the device's clock.
void launch_stamp(std::uint64_t* device_ns, const Launch& on);

}  // namespace spectx::cu
