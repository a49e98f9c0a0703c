// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "spectx/stream.hpp"

namespace spectx::support {

/// What a stream was given to do, recorded once and launched again and again. Needs a CUDA device.
/// Move-only.
class CapturedStep {
 public:
  /// Records what `work` gives the stream; nothing of it runs. Throws Error.
  CapturedStep(StreamView stream, const std::function<void()>& work);
  CapturedStep(CapturedStep&& other) noexcept;
  CapturedStep& operator=(CapturedStep&&) = delete;
  ~CapturedStep();

  void launch(StreamView stream) const;

 private:
  void* graph_ = nullptr;  // cudaGraphExec_t
};

}  // namespace spectx::support
