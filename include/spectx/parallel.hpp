// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/types.hpp"

namespace spectx {

/// The host's own parallel loop: calls body(body_context, task, thread) for every task in
/// [0, tasks), thread in [0, threads); returns when all are done. Null `run`: the backend keeps its
/// own threads.
struct ParallelFor {
  using Body = void (*)(void* body_context, index_t task, int thread);
  void* context = nullptr;
  int threads = 0;
  void (*run)(void* context, index_t tasks, void* body_context, Body body) = nullptr;
};

}  // namespace spectx
