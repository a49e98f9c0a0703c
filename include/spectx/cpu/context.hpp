// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <vector>

#include "spectx/cpu/thread_pool.hpp"
#include "spectx/memory.hpp"

namespace spectx::cpu {

/// Memory that an operation uses while it runs. Grows to the largest use and is kept.
class Scratch {
 public:
  explicit Scratch(MemoryResource& memory) noexcept : memory_(&memory) {}

  /// At least `bytes`; what was there is lost.
  std::byte* reserve(index_t bytes) {
    if (bytes > buffer_.bytes()) {
      buffer_ = Buffer();
      buffer_ = Buffer(*memory_, bytes + bytes / 4);
    }
    return buffer_.data();
  }

 private:
  MemoryResource* memory_;
  Buffer buffer_;
};

/// Elements of an array that starts on a cache line, so that the next one does too.
template <class T>
constexpr index_t padded(index_t count) noexcept {
  constexpr index_t kPerLine = 64 / static_cast<index_t>(sizeof(T));
  return (count + kPerLine - 1) / kPerLine * kPerLine;
}

/// Hands out the arrays inside a reserved scratch, one after the other.
class Carver {
 public:
  explicit Carver(std::byte* memory) noexcept : next_(memory) {}

  template <class T>
  T* take(index_t count) noexcept {
    T* const array = reinterpret_cast<T*>(next_);
    next_ += padded<std::byte>(count * static_cast<index_t>(sizeof(T)));
    return array;
  }

 private:
  std::byte* next_;
};

/// What the CPU operations need beside their arguments: threads, and scratch memory for the call
/// and for each thread.
class Context {
 public:
  Context(int threads, const ParallelFor& host, MemoryResource& memory)
      : pool_(host.run == nullptr ? std::make_unique<ThreadPool>(threads) : nullptr),
        host_(host),
        shared_(memory) {
    expects(host.run == nullptr || host.threads > 0,
            "CpuOptions: parallel_for.threads must be positive");
    for (int i = 0; i < this->threads(); ++i) per_thread_.emplace_back(memory);
  }

  int threads() const noexcept { return pool_ ? pool_->threads() : host_.threads; }
  Scratch& shared() noexcept { return shared_; }
  Scratch& of_thread(int thread) noexcept { return per_thread_[static_cast<std::size_t>(thread)]; }

  /// body(task, thread) for every task in [0, tasks). What the first task to fail throws is thrown
  /// here, once all have ended.
  template <class Body>
  void for_each(index_t tasks, Body&& body) {
    if (tasks <= 1 || threads() == 1) {
      for (index_t task = 0; task < tasks; ++task) body(task, 0);
      return;
    }
    struct Loop {
      Body& body;
      std::atomic<bool> has_failed = false;
      std::exception_ptr failure;
    } loop{body, false, nullptr};
    const ParallelFor::Body call = [](void* context, index_t task, int thread) {
      Loop& l = *static_cast<Loop*>(context);
      try {
        l.body(task, thread);
      } catch (...) {
        if (!l.has_failed.exchange(true)) l.failure = std::current_exception();
      }
    };
    if (pool_) {
      pool_->run(tasks, &loop, call);
    } else {
      host_.run(host_.context, tasks, &loop, call);
    }
    if (loop.failure) std::rethrow_exception(loop.failure);
  }

  /// body(begin, end, thread) over ranges that cover [0, count). `unit_bytes`: what one element
  /// moves; little work stays on the caller.
  template <class Body>
  void for_ranges(index_t count, index_t unit_bytes, Body&& body) {
    constexpr index_t kRangeBytes = 32 << 10;  // some microseconds of work
    const index_t by_bytes = std::max(kRangeBytes / std::max(unit_bytes, index_t{1}), index_t{1});
    const index_t by_threads = count / (8 * threads());
    const index_t length = std::max(by_bytes, by_threads);
    for_each((count + length - 1) / length, [&](index_t task, int thread) {
      body(task * length, std::min(count, (task + 1) * length), thread);
    });
  }

 private:
  std::unique_ptr<ThreadPool> pool_;
  ParallelFor host_;
  Scratch shared_;
  std::vector<Scratch> per_thread_;
};

}  // namespace spectx::cpu
