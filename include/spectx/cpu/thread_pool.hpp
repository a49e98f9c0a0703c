// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cassert>
#include <chrono>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#include "spectx/parallel.hpp"

namespace spectx::cpu {

/// Tells the core that the loop only waits.
inline void relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Threads that run the tasks of one loop at a time; the caller is one of them. A step has hundreds
/// of loops of some microseconds, so idle threads spin for a while before they sleep, and a loop
/// ends with its last task, not with the last thread to look for one. Not thread-safe.
class ThreadPool {
 public:
  /// `threads` counts the caller; 0: one a core. Runs with fewer where the system has no more.
  explicit ThreadPool(int threads) {
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    const int wanted = threads > 0 ? threads : (cores > 0 ? cores : 1);
    workers_.reserve(static_cast<std::size_t>(wanted));
    try {
      for (int i = 1; i < wanted; ++i) workers_.emplace_back([this, i] { serve(i); });
    } catch (const std::system_error&) {
      // The threads that started do all the work.
    }
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    stop_.store(true, std::memory_order_relaxed);
    publish(0);
    for (std::thread& worker : workers_) worker.join();
  }

  int threads() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(context, task, thread) for every task in [0, tasks); returns when all are done.
  /// `body` must not throw.
  void run(index_t tasks, void* context, ParallelFor::Body body) {
    if (workers_.empty() || tasks <= 1) {
      for (index_t task = 0; task < tasks; ++task) body(context, task, 0);
      return;
    }
    assert(tasks <= static_cast<index_t>(kWaiting));
    body_ = body;
    context_ = context;
    tasks_ = static_cast<std::uint32_t>(tasks);
    done_.store(0, std::memory_order_relaxed);
    publish(tasks_);
    work(0);
    const Spin spin;
    while (done_.load(std::memory_order_acquire) != tasks_) {
      if (spin.is_over()) {
        const std::uint32_t seen = done_.load(std::memory_order_acquire);
        if (seen != tasks_) done_.wait(seen, std::memory_order_acquire);
      }
    }
  }

 private:
  static constexpr std::uint64_t kWaiting = 0xffffffffU;  // low half of a ticket: tasks not begun

  /// Longer than the work between two loops of a step, short beside a scheduler's slice.
  class Spin {
   public:
    bool is_over() const noexcept {
      for (int i = 0; i < 16; ++i) relax();
      return std::chrono::steady_clock::now() - begin_ > std::chrono::microseconds(60);
    }

   private:
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  };

  /// Starts a loop: a ticket with a new number, so that sleepers see a change.
  void publish(std::uint32_t tasks) {
    const std::uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store((number << 32) | tasks, std::memory_order_release);
    ticket_.notify_all();
  }

  /// Takes tasks until none is left. Who takes one holds the loop open: body_, context_ and tasks_
  /// stay as they are until done_ counts it.
  void work(int thread) {
    std::uint32_t finished = 0;
    std::uint64_t ticket = ticket_.load(std::memory_order_relaxed);
    while ((ticket & kWaiting) != 0) {
      if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acquire,
                                         std::memory_order_relaxed)) {
        continue;
      }
      const std::uint32_t left = static_cast<std::uint32_t>(ticket & kWaiting);
      body_(context_, static_cast<index_t>(tasks_ - left), thread);
      ++finished;
      ticket = ticket_.load(std::memory_order_relaxed);
    }
    if (finished == 0) return;
    done_.fetch_add(finished, std::memory_order_acq_rel);
    if (thread != 0) done_.notify_one();
  }

  void serve(int thread) {
    while (true) {
      work(thread);
      const Spin spin;
      std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
      while ((ticket & kWaiting) == 0) {
        if (stop_.load(std::memory_order_relaxed)) return;
        if (spin.is_over()) ticket_.wait(ticket, std::memory_order_relaxed);
        ticket = ticket_.load(std::memory_order_acquire);
      }
    }
  }

  std::vector<std::thread> workers_;
  ParallelFor::Body body_ = nullptr;
  void* context_ = nullptr;
  std::uint32_t tasks_ = 0;
  std::atomic<bool> stop_ = false;
  alignas(64) std::atomic<std::uint64_t> ticket_ = 0;
  alignas(64) std::atomic<std::uint32_t> done_ = 0;
};

}  // namespace spectx::cpu
