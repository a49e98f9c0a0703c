// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>

#include "spectx/backend.hpp"

namespace spectx::test {

/// Many small pieces of device memory, for one wait.
class DeviceReader {
 public:
  DeviceReader(Backend& backend, MemoryResource& host) : backend_(backend), memory_(host, kBytes) {}

  /// Where `count` values will be after wait(), until something is asked for again.
  template <class T>
  const T* ask(const T* device, index_t count, StreamView stream) {
    const index_t bytes = count * index_t{sizeof(T)};
    if (used_ + bytes > kBytes) throw std::runtime_error("DeviceReader: too much for one wait");
    std::byte* const to = memory_.data() + used_;
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes > 0) backend_.copy(to, device, bytes, stream);
    return reinterpret_cast<const T*>(to);
  }
  void wait(StreamView stream) {
    backend_.synchronize(stream);
    used_ = 0;
  }

 private:
  static constexpr index_t kBytes = index_t{1} << 20;
  static constexpr index_t kAlignment = 16;

  Backend& backend_;
  Buffer memory_;  // pinned, where that is something
  index_t used_ = 0;
};

}  // namespace spectx::test
