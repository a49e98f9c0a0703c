// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <unistd.h>

#include "check.hpp"

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

index_t free_host_bytes() noexcept {
  const long pages = sysconf(_SC_AVPHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  return pages > 0 && page_bytes > 0 ? index_t{pages} * page_bytes : 0;
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
  void* memory = nullptr;
  const cudaError_t status = cudaHostAlloc(&memory, static_cast<std::size_t>(bytes > 0 ? bytes : 1),
                                           cudaHostAllocMapped | cudaHostAllocPortable);
  check_allocation(status, Tier::host, bytes, free_host_bytes());
  return memory;
}

void PinnedMemory::deallocate(void* memory, index_t) noexcept {
  static_cast<void>(cudaFreeHost(memory));
}

}  // namespace spectx::cu
