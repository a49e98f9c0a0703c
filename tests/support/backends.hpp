// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "spectx/cpu/backend.hpp"

namespace spectx::test {

/// A backend under test, shared by the runs of a generator.
struct NamedBackend {
  std::string name;
  std::shared_ptr<Backend> backend;
};

/// Every backend that an operation has to work on. SPECTX_TEST_REQUIRE_CUDA=1: a missing device is
/// a failure.
inline std::vector<NamedBackend> backends() {
  std::vector<NamedBackend> all;
  all.push_back({"cpu", make_cpu_backend({.threads = 2})});
  all.push_back({"cpu, two memories", make_cpu_backend({.threads = 3, .two_memories = true})});
  const char* const required = std::getenv("SPECTX_TEST_REQUIRE_CUDA");
  if (required != nullptr && std::string(required) == "1") {
    throw std::runtime_error("SPECTX_TEST_REQUIRE_CUDA is set and no CUDA backend is there");
  }
  return all;
}

}  // namespace spectx::test
