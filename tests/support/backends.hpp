// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "slow_run.hpp"
#include "spectx/backend.hpp"

namespace spectx::test {

/// A backend under test, shared by the runs of a generator.
struct NamedBackend {
  std::string name;
  std::shared_ptr<Backend> backend;
};

/// Every backend that an operation has to work on; a CUDA device where there is one. In the
/// environment, SPECTX_TEST_REQUIRE_CUDA=1: a missing device is a failure;
/// SPECTX_TEST_BACKEND=cuda: the device alone, and the tests of the components run on it too.
std::vector<NamedBackend> backends();

struct BackendOptions {
  int threads = 1;
  bool two_memories = false;
};

/// A CpuBackend, whose code is compiled once for all tests, unless SPECTX_TEST_BACKEND says cuda.
std::unique_ptr<Backend> make_backend(const BackendOptions& options = {});

/// The CpuBackend that others are compared with, whatever SPECTX_TEST_BACKEND says: two memories.
std::unique_ptr<Backend> make_oracle();

}  // namespace spectx::test
