// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "spectx/memory.hpp"

namespace spectx::detail {

/// Takes chunks of a slow memory, in order, on a thread of its own, ahead of who needs them. One
/// other thread calls it.
class ChunkGrower {
 public:
  /// @param bytes  of each chunk that there may ever be
  ChunkGrower(MemoryResource& memory, std::vector<index_t> bytes)
      : memory_(memory), bytes_(std::move(bytes)) {
    ready_.reserve(bytes_.size());
    thread_ = std::thread([this] { run(); });
  }
  ChunkGrower(ChunkGrower&&) = delete;
  /// Waits for a chunk that is being taken.
  ~ChunkGrower() {
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  /// `chunks` chunks in all are wanted. One that could not be taken is tried again if it is
  /// `needed`, but not ahead of need.
  void want(index_t chunks, bool is_needed) {
    {
      const std::lock_guard lock(mutex_);
      wanted_ = std::max(wanted_, std::min(chunks, count()));
      if (is_needed && failure_) failure_ = nullptr;
    }
    changed_.notify_all();
  }
  /// Of the chunks that are there and were not given out.
  index_t ready_bytes() const {
    const std::lock_guard lock(mutex_);
    index_t bytes = 0;
    for (const Buffer& chunk : ready_) bytes += chunk.bytes();
    return bytes;
  }
  /// The next chunk, if it is there.
  Buffer take() {
    const std::lock_guard lock(mutex_);
    return take_ready();
  }
  /// The next chunk, which is wanted: waits for it. Throws what taking it has thrown.
  Buffer wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return taken_ < made() || failure_; });
    if (taken_ == made()) std::rethrow_exception(failure_);
    return take_ready();
  }

 private:
  index_t count() const { return static_cast<index_t>(bytes_.size()); }
  index_t made() const { return static_cast<index_t>(ready_.size()); }
  Buffer take_ready() {
    if (taken_ == made()) return {};
    return std::move(ready_[static_cast<std::size_t>(taken_++)]);
  }
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return is_ending_ || (made() < wanted_ && !failure_); });
      if (is_ending_) return;
      const index_t bytes = bytes_[ready_.size()];
      lock.unlock();
      Buffer chunk;
      std::exception_ptr failure;
      try {
        chunk = Buffer(memory_, bytes);
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      failure_ = failure;
      if (!failure) ready_.push_back(std::move(chunk));
      changed_.notify_all();
    }
  }

  MemoryResource& memory_;
  std::vector<index_t> bytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Buffer> ready_;  // in order; those below taken_ are empty
  index_t taken_ = 0;
  index_t wanted_ = 0;
  std::exception_ptr failure_;  // of the next chunk
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace spectx::detail
