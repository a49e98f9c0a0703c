// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "check.hpp"
#include "spectx/host_memory.hpp"

namespace spectx::cu {
namespace {

constexpr index_t kAlignment = 256;  // bytes, of cudaMalloc

void check_request(index_t bytes, index_t alignment) {
  expects(bytes >= 0, "MemoryResource::allocate: bytes must not be negative");
  expects(alignment > 0 && (alignment & (alignment - 1)) == 0,
          "MemoryResource::allocate: alignment must be a power of two");
  if (alignment > kAlignment) {
    throw Unsupported("MemoryResource::allocate: CUDA aligns to 256 bytes, asked for " +
                      std::to_string(alignment));
  }
}

/// Throws OutOfMemory where that is what happened, else CudaError.
void check_allocation(cudaError_t status, Tier tier, index_t bytes, index_t bytes_free) {
  if (status != cudaErrorMemoryAllocation) return check(status);
  static_cast<void>(cudaGetLastError());  // the failure is told; later checks must not find it
  throw OutOfMemory(tier, bytes, bytes_free);
}

index_t free_device_bytes() noexcept {
  std::size_t free = 0;
  std::size_t total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<index_t>(free) : 0;
}

constexpr index_t kLargeBytes = index_t{4} << 20;
constexpr index_t kHugePageBytes = index_t{2} << 20;

index_t whole_pages(index_t bytes) noexcept {
  return (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
}

/// Of the GPU's slot; negative: one node, or unknown.
int numa_node(int device) {
  std::array<char, 32> slot{};
  if (cudaDeviceGetPCIBusId(slot.data(), static_cast<int>(slot.size()), device) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return -1;
  }
  for (char& c : slot) c = c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
  int node = -1;
  std::ifstream("/sys/bus/pci/devices/" + std::string(slot.data()) + "/numa_node") >> node;
  return node;
}

/// Fresh memory of the process in whole huge pages, as near to the GPU as there is room; null:
/// there is none.
void* map_pages(index_t bytes, int device) {
  const auto wanted = static_cast<std::size_t>(bytes + kHugePageBytes);
  void* const mapped =
      mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  std::byte* const begin = static_cast<std::byte*>(mapped);
  const auto before = static_cast<std::size_t>(
      whole_pages(static_cast<index_t>(reinterpret_cast<std::uintptr_t>(begin))) -
      static_cast<index_t>(reinterpret_cast<std::uintptr_t>(begin)));
  std::byte* const first = begin + before;
  if (before > 0) munmap(begin, before);
  munmap(first + bytes, wanted - before - static_cast<std::size_t>(bytes));
  // Advice: without huge pages or a node everything still works.
  madvise(first, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);
  constexpr int kPreferred = 1;  // MPOL_PREFERRED
  constexpr int kMostNodes = 64;
  if (const int node = numa_node(device); node >= 0 && node < kMostNodes) {
    const std::uint64_t nodes = std::uint64_t{1} << node;
    static_cast<void>(syscall(SYS_mbind, first, bytes, kPreferred, &nodes, kMostNodes + 1, 0));
  }
  // Pinning pages that are there already holds up other calls of the driver for less long.
  for (index_t i = 0; i < bytes; i += sysconf(_SC_PAGESIZE)) first[i] = std::byte{0};
  return first;
}

}  // namespace

void* DeviceMemory::allocate(index_t bytes, index_t alignment) {
  check_request(bytes, alignment);
  const DeviceGuard guard(device_);
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, static_cast<std::size_t>(bytes > 0 ? bytes : 1));
  check_allocation(status, Tier::device, bytes, free_device_bytes());
  return memory;
}

void DeviceMemory::deallocate(void* memory, index_t) noexcept {
  static_cast<void>(cudaFree(memory));
}

void* PinnedMemory::allocate(index_t bytes, index_t alignment) {
  check_request(bytes, alignment);
  const DeviceGuard guard(device_);
  const AllocationInCapture allowed;
  void* memory = nullptr;
  if (bytes < kLargeBytes) {
    const cudaError_t status =
        cudaHostAlloc(&memory, static_cast<std::size_t>(bytes > 0 ? bytes : 1),
                      cudaHostAllocMapped | cudaHostAllocPortable);
    check_allocation(status, Tier::host, bytes, host_memory_limit());
    return memory;
  }
  // More would be killed, not refused.
  const index_t left = std::min(host_memory_limit(), index_t{1} << 60);
  if (bytes > left) throw OutOfMemory(Tier::host, bytes, left);
  memory = map_pages(whole_pages(bytes), device_);
  if (memory == nullptr) throw OutOfMemory(Tier::host, bytes, host_memory_limit());
  const cudaError_t status = cudaHostRegister(memory, static_cast<std::size_t>(whole_pages(bytes)),
                                              cudaHostRegisterMapped | cudaHostRegisterPortable);
  if (status != cudaSuccess) munmap(memory, static_cast<std::size_t>(whole_pages(bytes)));
  check_allocation(status, Tier::host, bytes, host_memory_limit());
  return memory;
}

void PinnedMemory::deallocate(void* memory, index_t bytes) noexcept {
  if (bytes < kLargeBytes) {
    static_cast<void>(cudaFreeHost(memory));
    return;
  }
  static_cast<void>(cudaHostUnregister(memory));
  munmap(memory, static_cast<std::size_t>(whole_pages(bytes)));
}

}  // namespace spectx::cu
