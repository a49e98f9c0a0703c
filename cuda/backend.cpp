// SPDX-License-Identifier: Apache-2.0
#include "spectx/cuda/backend.hpp"

#include "blas.hpp"
#include "memory.hpp"
#include "nvtx.hpp"
#include "spectx/cuda/interop.hpp"
#include "stream_pool.hpp"

namespace spectx::cu {
namespace {

/// One GPU, by its ordinal, current.
class Device {
 public:
  explicit Device(int ordinal) : guard_(checked(ordinal)) {
    check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, ordinal));
    check(cudaDeviceGetAttribute(&shared_bytes_, cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal));
    check(cudaDeviceGetAttribute(&major_, cudaDevAttrComputeCapabilityMajor, ordinal));
    check(cudaDeviceGetAttribute(&minor_, cudaDevAttrComputeCapabilityMinor, ordinal));
  }
  int multiprocessors() const noexcept { return multiprocessors_; }
  int shared_bytes() const noexcept { return shared_bytes_; }
  /// sm_90 is the first with programmatic dependent launches, and with clusters.
  bool is_sm90() const noexcept { return major_ >= 9; }
  /// No later device runs what is built for sm_90a.
  bool is_sm90a() const noexcept { return major_ == 9 && minor_ == 0; }

 private:
  static int checked(int ordinal) {
    expects(ordinal >= 0 && ordinal < device_count(), "cu::make_backend: no such device");
    return ordinal;
  }

  DeviceGuard guard_;
  int multiprocessors_ = 0;
  int shared_bytes_ = 0;
  int major_ = 0;
  int minor_ = 0;
};

class CudaBackend final : public Backend {
 public:
  CudaBackend(const CudaOptions& options, const Device& device)
      : options_(options),
        nvtx_(options.trace),
        multiprocessors_(device.multiprocessors()),
        shared_bytes_(device.shared_bytes()),
        is_sm90_(device.is_sm90()),
        is_sm90a_(device.is_sm90a()),
        device_memory_(options.device),
        host_memory_(options.device),
        streams_(device_memory_, host_memory_) {
    if (options.has_nvtx_ranges) options_.trace = nvtx_.sink();
  }

  void embed(const EmbedArgs& a, StreamView s) override {
    run("CudaBackend::embed", s, launch_embed, a);
  }
  void matmul(const MatmulArgs& a, StreamView s) override {
    check_args(a, kLimits);
    // cuBLAS is faster from two rows of a half type on; its sums depend on the number of rows.
    const index_t few_rows = a.w.dtype == DType::f32 ? 8 : 1;
    const bool is_mixed = a.x.dtype != a.w.dtype;
    if (a.x.shape[0] <= few_rows || is_mixed || a.x.shape[1] == 0 || a.out.size() == 0) {
      return launch("CudaBackend::matmul", s, launch_matmul_few_rows, a);
    }
    const Entry entry(*this, "CudaBackend::matmul", TraceLane::compute, s);
    blas_.matmul(a, entry.launch());
  }
  void rms_norm(const RmsNormArgs& a, StreamView s) override {
    run("CudaBackend::rms_norm", s, launch_rms_norm, a);
  }
  void rope(const RopeArgs& a, StreamView s) override {
    run("CudaBackend::rope", s, launch_rope, a);
  }
  void swiglu(const SwigluArgs& a, StreamView s) override {
    run("CudaBackend::swiglu", s, launch_swiglu, a);
  }
  void add(const AddArgs& a, StreamView s) override { run("CudaBackend::add", s, launch_add, a); }
  void argmax(const ArgmaxArgs& a, StreamView s) override {
    run("CudaBackend::argmax", s, launch_argmax, a);
  }
  void append_rows(const AppendRowsArgs& a, StreamView s) override {
    run("CudaBackend::append_rows", s, launch_append_rows, a);
  }
  void score(const ScoreArgs& a, StreamView s) override {
    run("CudaBackend::score", s, launch_score, a);
  }
  void top_k(const TopKArgs& a, StreamView s) override {
    run("CudaBackend::top_k", s, launch_top_k, a);
  }
  void coverage(const CoverageArgs& a, StreamView s) override {
    run("CudaBackend::coverage", s, launch_coverage, a);
  }
  void join_heads(const JoinHeadsArgs& a, StreamView s) override {
    run("CudaBackend::join_heads", s, launch_join_heads, a);
  }
  void guard(const GuardArgs& a, StreamView s) override {
    run("CudaBackend::guard", s, launch_guard, a);
  }
  void store_ring(const StoreRingArgs& a, StreamView s) override {
    run("CudaBackend::store_ring", s, launch_store_ring, a);
  }
  void load_ring(const LoadRingArgs& a, StreamView s) override {
    run("CudaBackend::load_ring", s, launch_load_ring, a);
  }
  void update_slots(const UpdateSlotsArgs& a, StreamView s) override {
    run("CudaBackend::update_slots", s, launch_update_slots, a);
  }
  void forget_slots(const ForgetSlotsArgs& a, StreamView s) override {
    run("CudaBackend::forget_slots", s, launch_forget_slots, a);
  }
  void gather_rows(const GatherRowsArgs& a, StreamView s) override {
    run("CudaBackend::gather_rows", s, launch_gather_rows, a, TraceLane::copy);
  }
  void scatter_rows(const ScatterRowsArgs& a, StreamView s) override {
    run("CudaBackend::scatter_rows", s, launch_scatter_rows, a, TraceLane::copy);
  }
  void move_rows(const MoveRowsArgs& a, StreamView s) override {
    run("CudaBackend::move_rows", s, launch_move_rows, a, TraceLane::copy);
  }
  void attend(const AttendArgs& a, StreamView s) override {
    run("CudaBackend::attend", s, launch_attend, a);
  }

  Stream make_stream(StreamOptions options) override {
    const DeviceGuard guard(options_.device);
    int least = 0;
    int greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                       options.high_priority ? greatest : least));
    return {*this, stream};
  }
  Event make_event() override {
    const DeviceGuard guard(options_.device);
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return {*this, event};
  }
  void destroy_stream(void* handle) noexcept override {
    const auto stream = static_cast<cudaStream_t>(handle);
    static_cast<void>(cudaStreamSynchronize(stream));
    streams_.forget(stream);
    static_cast<void>(cudaStreamDestroy(stream));
  }
  void destroy_event(void* handle) noexcept override {
    static_cast<void>(cudaEventDestroy(static_cast<cudaEvent_t>(handle)));
  }

  void copy(void* to, const void* from, index_t bytes, StreamView s) override {
    check_memory(to, from, bytes);
    if (bytes == 0) return;
    const Entry entry(*this, "CudaBackend::copy", TraceLane::compute, s);
    const cudaStream_t stream = entry.launch().stream;
    if (cu::is_capturing(stream)) {
      if (is_pageable(to) || is_pageable(from)) {
        throw Unsupported("CudaBackend::copy: a captured copy needs memory of memories().host");
      }
    } else if (bytes <= CopyStage::kPieceBytes && is_pageable(to) && !is_pageable(from) &&
               streams_.stage_of(entry.state()).copy(to, from, bytes, stream)) {
      return;
    }
    // A pageable source has been read when this returns.
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream));
  }
  void fill(void* to, int byte, index_t bytes, StreamView s) override {
    check_memory(to, to, bytes);
    if (bytes == 0) return;
    const Entry entry(*this, "CudaBackend::fill", TraceLane::compute, s);
    check(cudaMemsetAsync(to, byte, static_cast<std::size_t>(bytes), entry.launch().stream));
  }
  void record(EventView event, StreamView s) override {
    const DeviceGuard guard(options_.device);
    check(cudaEventRecord(cuda_event(event), checked(s)));
  }
  void wait(StreamView s, EventView event) override {
    const DeviceGuard guard(options_.device);
    check(cudaStreamWaitEvent(checked(s), cuda_event(event), cudaEventWaitDefault));
  }
  bool is_done(EventView event) override {
    const DeviceGuard guard(options_.device);
    const cudaError_t status = cudaEventQuery(cuda_event(event));
    if (status == cudaErrorNotReady) return false;
    check(status);
    return true;
  }
  void synchronize(StreamView s) override {
    const DeviceGuard guard(options_.device);
    check(cudaStreamSynchronize(checked(s)));
  }
  bool is_capturing(StreamView s) override { return cu::is_capturing(checked(s)); }
  void stamp(std::uint64_t* device_ns, StreamView s) override {
    launch("CudaBackend::stamp", s, launch_stamp, device_ns);
  }

  Memories memories() override { return {device_memory_, host_memory_}; }
  index_t scratch_bytes(const ScratchShape& shape) const noexcept override {
    return cu::scratch_bytes(shape);
  }
  bool has_one_memory() const noexcept override { return false; }
  bool runs_at_call() const noexcept override { return false; }
  DType compute_dtype(DType weights) const noexcept override { return weights; }
  const TraceSink& trace() const noexcept override { return options_.trace; }

 private:
  /// Every operation enters its device and has its stream's scratch.
  class Entry {
   public:
    Entry(CudaBackend& backend, const char* name, TraceLane lane, StreamView s)
        : span_(backend.options_.trace, name, lane),
          guard_(backend.options_.device),
          state_(backend.streams_.of(checked(s))),
          multiprocessors_(backend.multiprocessors_),
          shared_bytes_(backend.shared_bytes_),
          is_sm90_(backend.is_sm90_),
          is_sm90a_(backend.is_sm90a_) {}
    StreamState& state() const noexcept { return state_; }
    Launch launch() const noexcept {
      return {state_.stream,    state_.scratch,
              multiprocessors_, shared_bytes_,
              is_sm90_,         is_sm90_,
              is_sm90a_,        reinterpret_cast<std::uint32_t*>(state_.zeros.data())};
    }

   private:
    TraceSpan span_;
    DeviceGuard guard_;
    StreamState& state_;
    int multiprocessors_, shared_bytes_;
    bool is_sm90_, is_sm90a_;
  };

  template <class Launcher, class Args>
  void run(const char* name, StreamView s, Launcher launcher, const Args& args,
           TraceLane lane = TraceLane::compute) {
    check_args(args, kLimits);
    launch(name, s, launcher, args, lane);
  }
  template <class Launcher, class Args>
  void launch(const char* name, StreamView s, Launcher launcher, const Args& args,
              TraceLane lane = TraceLane::compute) {
    const Entry entry(*this, name, lane, s);
    launcher(args, entry.launch());
  }

  static cudaStream_t checked(StreamView s) {
    expects(s.handle != nullptr, "CudaBackend: the legacy stream cannot be used");
    return cuda_stream(s);
  }
  static bool is_pageable(const void* memory) {
    cudaPointerAttributes attributes{};
    check(cudaPointerGetAttributes(&attributes, memory));
    return attributes.type == cudaMemoryTypeUnregistered;
  }

  CudaOptions options_;
  NvtxRanges nvtx_;
  int multiprocessors_, shared_bytes_;
  bool is_sm90_, is_sm90a_;
  DeviceMemory device_memory_;
  PinnedMemory host_memory_;
  StreamPool streams_;
  Blas blas_;
};

}  // namespace

int device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  static_cast<void>(cudaGetLastError());
  return 0;
}

std::unique_ptr<Backend> make_backend(const CudaOptions& options) {
  const Device device(options.device);
  return std::make_unique<CudaBackend>(options, device);
}

}  // namespace spectx::cu
