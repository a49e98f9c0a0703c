// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <vector>

#include "spectx/batch.hpp"

namespace spectx::test {

/// What was put on a stream and has not run yet.
struct DeferredQueue {
  void push(std::function<void()> operation) {
    work.push_back(std::move(operation));
    ++put;
  }
  void run_to(index_t position) {
    while (done < position) {
      const std::function<void()> operation = std::move(work.front());
      work.pop_front();
      operation();
      ++done;
    }
  }
  void run_all() { run_to(put); }

  std::deque<std::function<void()>> work;
  index_t put = 0, done = 0;
};

/// After the operation `position - 1` of a stream.
struct DeferredPlace {
  DeferredQueue* queue = nullptr;
  index_t position = 0;
};

/// Arguments until they are used. A Batch is host data, which a launch reads at the call.
template <class Args>
struct HeldArgs {
  explicit HeldArgs(const Args& a) : args(a) {
    if constexpr (requires { args.batch; }) {
      batch = *a.batch;
      items.assign(a.batch->items.begin(), a.batch->items.end());
      batch.items = items;
      args.batch = &batch;
    }
  }
  HeldArgs(const HeldArgs&) = delete;

  Args args;
  Batch batch{};
  std::vector<ScheduledItem> items{};
};

}  // namespace spectx::test
