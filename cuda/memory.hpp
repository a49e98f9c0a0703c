// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/memory.hpp"

namespace spectx::cu {

/// Memory of one GPU. Thread-safe.
class DeviceMemory final : public MemoryResource {
 public:
  explicit DeviceMemory(int device) noexcept : device_(device) {}
  void* allocate(index_t bytes, index_t alignment = 256) override;
  void deallocate(void* memory, index_t bytes) noexcept override;

 private:
  int device_;
};

/// Pinned memory of the process that every GPU reads and writes by the same address, on the NUMA
/// node of one of them if there are several. Throws OutOfMemory rather than take more than
/// host_memory_limit(). Thread-safe, beside a capture too.
class PinnedMemory final : public MemoryResource {
 public:
  explicit PinnedMemory(int device) noexcept : device_(device) {}
  void* allocate(index_t bytes, index_t alignment = 256) override;
  void deallocate(void* memory, index_t bytes) noexcept override;
  bool is_slow() const noexcept override { return true; }

 private:
  int device_;
};

}  // namespace spectx::cu
