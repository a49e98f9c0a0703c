// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../catch.hpp"
#include "backends.hpp"

namespace spectx::test {

/// Null without a device, which is a failure if SPECTX_TEST_REQUIRE_CUDA is set.
inline std::shared_ptr<Backend> device() {
  for (const NamedBackend& b : backends()) {
    if (b.name == "cuda") return b.backend;
  }
  WARN("no CUDA device: nothing was tested");
  return nullptr;
}

}  // namespace spectx::test
