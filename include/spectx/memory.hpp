// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "spectx/error.hpp"
#include "spectx/types.hpp"

namespace spectx {

/// Where bytes come from: given by the caller, used by constructors and by the growth of a tier.
class MemoryResource {
 public:
  virtual ~MemoryResource() = default;
  /// Throws OutOfMemory. `alignment` is a power of two.
  virtual void* allocate(index_t bytes, index_t alignment = 256) = 0;
  virtual void deallocate(void* memory, index_t bytes) noexcept = 0;
  /// Bytes take long to get, as pinned ones do: who needs many takes them ahead of need, on a
  /// thread of its own, so that both calls must be thread-safe. Who wraps a resource passes it on.
  virtual bool is_slow() const noexcept { return false; }
};

/// The two memories that a component may use. On a machine with one memory both are the same
/// resource.
struct Memories {
  MemoryResource& device;
  MemoryResource& host;
};

/// Owns one allocation of a MemoryResource, which must outlive it. Move-only.
class Buffer {
 public:
  Buffer() = default;
  Buffer(MemoryResource& memory, index_t bytes)
      : memory_(&memory), bytes_(bytes), data_(bytes == 0 ? nullptr : memory.allocate(bytes)) {}
  Buffer(Buffer&& other) noexcept
      : memory_(other.memory_),
        bytes_(std::exchange(other.bytes_, 0)),
        data_(std::exchange(other.data_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) memory_->deallocate(data_, bytes_);
  }

  std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  index_t bytes() const noexcept { return bytes_; }

 private:
  MemoryResource* memory_ = nullptr;
  index_t bytes_ = 0;
  void* data_ = nullptr;
};

}  // namespace spectx
