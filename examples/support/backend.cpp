// SPDX-License-Identifier: Apache-2.0
#include "support/backend.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "spectx/cpu/backend.hpp"
#include "spectx/host_memory.hpp"
#include "support/args.hpp"

#ifdef SPECTX_WITH_CUDA
#include <cuda_runtime_api.h>

#include "spectx/cuda/backend.hpp"
#endif

namespace spectx::support {
namespace {

/// What follows `key` and a colon in a file of the system; empty if it is not there.
std::string field(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t colon = line.find(':');
    const std::size_t begin = line.find_first_not_of(" \t", colon + 1);
    if (colon != std::string::npos && begin != std::string::npos) return line.substr(begin);
  }
  return {};
}

#ifdef SPECTX_WITH_CUDA
int device_count() { return cu::device_count(); }

std::string driver_version() {
  // "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  ..."
  std::istringstream words(field("/proc/driver/nvidia/version", "NVRM version"));
  for (std::string word; words >> word;) {
    if (word.find_first_not_of("0123456789.") == std::string::npos) return word;
  }
  return "unknown";
}

ChosenBackend make_cuda_backend(const BackendOptions& options) {
  if (device_count() == 0) throw UsageError("--backend cuda: this machine has no CUDA device");
  ChosenBackend chosen{cu::make_backend({.trace = options.trace}), "cuda", "unknown",
                       driver_version()};
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) == cudaSuccess) chosen.device = properties.name;
  return chosen;
}

struct DeviceBytes {
  std::size_t free = 0;
  std::size_t total = 0;
};
DeviceBytes cuda_bytes() {
  DeviceBytes bytes;
  if (cudaMemGetInfo(&bytes.free, &bytes.total) == cudaSuccess) return bytes;
  throw Error("the GPU's memory is not known");
}
#else
int device_count() { return 0; }
ChosenBackend make_cuda_backend(const BackendOptions&) {
  throw UsageError("--backend cuda: this program was built without CUDA");
}
struct DeviceBytes {
  index_t free = 0;
  index_t total = 0;
};
DeviceBytes cuda_bytes() { return {}; }
#endif

}  // namespace

ChosenBackend make_backend(const BackendOptions& options) {
  const bool has_device = device_count() > 0;
  if (options.wanted == "cuda" || (options.wanted == "auto" && has_device)) {
    return make_cuda_backend(options);
  }
  std::string processor = field("/proc/cpuinfo", "model name");
  return {make_cpu_backend({.threads = options.threads,
                            .two_memories = options.two_memories,
                            .trace = options.trace}),
          "cpu", processor.empty() ? "unknown" : std::move(processor), ""};
}

index_t available_host_bytes() {
  return std::min(host_memory_limit(),
                  index_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE));
}

index_t available_device_bytes(const ChosenBackend& chosen) {
  return chosen.name == "cuda" ? static_cast<index_t>(cuda_bytes().free) : available_host_bytes();
}

index_t total_device_bytes(const ChosenBackend& chosen) {
  if (chosen.name == "cuda") return static_cast<index_t>(cuda_bytes().total);
  return index_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE);
}

}  // namespace spectx::support
