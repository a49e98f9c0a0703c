// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "spectx/backend.hpp"

namespace spectx::test {

/// A backend under test, shared by the runs of a generator.
struct NamedBackend {
  std::string name;
  std::shared_ptr<Backend> backend;
};

/// Every backend that an operation has to work on. SPECTX_TEST_REQUIRE_CUDA=1: a missing device is
/// a failure.
std::vector<NamedBackend> backends();

struct BackendOptions {
  int threads = 1;
  bool two_memories = false;
};

/// A CpuBackend, whose code is compiled once for all tests.
std::unique_ptr<Backend> make_backend(const BackendOptions& options = {});

}  // namespace spectx::test
