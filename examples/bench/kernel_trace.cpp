// SPDX-License-Identifier: Apache-2.0
#include "bench/kernel_trace.hpp"

#include "spectx/error.hpp"

#ifdef SPECTX_WITH_CUPTI
#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>
#endif

namespace spectx::bench {

#ifdef SPECTX_WITH_CUPTI
namespace {

constexpr CUpti_ActivityKind kKernels = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;

struct Kernel {
  std::uint64_t start = 0, end = 0;  // ns
  std::uint32_t graph = 0, launch = 0;
  std::int64_t blocks = 0;
  const char* name = nullptr;  // CUPTI's, for the life of the process
};

/// CUPTI's callbacks have no context, and come on its own thread.
struct Found {
  std::mutex mutex;
  std::vector<Kernel> kernels;
};

Found& found() {
  static Found all;
  return all;
}

void check(CUptiResult status) {
  if (status == CUPTI_SUCCESS) return;
  const char* text = nullptr;
  cuptiGetResultString(status, &text);
  throw Error(std::string("kernels cannot be traced: ") + (text == nullptr ? "CUPTI" : text));
}

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* bytes, std::size_t* most_records) {
  constexpr std::size_t kBytes = std::size_t{8} << 20;
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(ACTIVITY_RECORD_ALIGNMENT, kBytes));
  *bytes = *buffer == nullptr ? 0 : kBytes;
  *most_records = 0;
}

void CUPTIAPI take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t,
                          std::size_t bytes) {
  const std::lock_guard lock(found().mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, bytes, &record) == CUPTI_SUCCESS) {
    if (record->kind != kKernels) continue;
    const auto& k = *reinterpret_cast<const CUpti_ActivityKernel10*>(record);
    if (k.graphId == 0) continue;
    found().kernels.push_back({.start = k.start,
                               .end = k.end,
                               .graph = k.graphId,
                               .launch = k.correlationId,
                               .blocks = std::int64_t{k.gridX} * k.gridY * k.gridZ,
                               .name = k.name});
  }
  std::free(buffer);
}

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), &std::free);
  return status == 0 ? text.get() : name;
}

}  // namespace

KernelTrace::KernelTrace() {
  found().kernels.clear();
  check(cuptiActivityRegisterCallbacks(give_buffer, take_buffer));
  check(cuptiActivityEnable(kKernels));
}

KernelTrace::~KernelTrace() { static_cast<void>(cuptiActivityDisable(kKernels)); }

void KernelTrace::write(std::ostream& out) {
  check(cuptiActivityDisable(kKernels));
  check(cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED));
  const std::lock_guard lock(found().mutex);
  std::vector<Kernel>& all = found().kernels;
  std::sort(all.begin(), all.end(),
            [](const Kernel& a, const Kernel& b) { return a.start < b.start; });
  std::map<const char*, std::string> names;
  out << "graph,launch,start_ns,end_ns,blocks,name\n";
  for (const Kernel& k : all) {
    std::string& name = names[k.name];
    if (name.empty()) name = demangled(k.name);
    out << k.graph << ',' << k.launch << ',' << k.start << ',' << k.end << ',' << k.blocks << ','
        << name << '\n';
  }
}
#else
KernelTrace::KernelTrace() {
  throw Unsupported("kernels are traced in builds with SPECTX_ENABLE_CUPTI alone");
}
KernelTrace::~KernelTrace() = default;
void KernelTrace::write(std::ostream&) {}
#endif

}  // namespace spectx::bench
