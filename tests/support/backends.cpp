// SPDX-License-Identifier: Apache-2.0
#include "support/backends.hpp"

#include <cstdlib>
#include <stdexcept>

#include "spectx/cpu/backend.hpp"

namespace spectx::test {

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  return make_cpu_backend({.threads = options.threads, .two_memories = options.two_memories});
}

std::vector<NamedBackend> backends() {
  std::vector<NamedBackend> all;
  all.push_back({"cpu", make_backend({.threads = 2})});
  all.push_back({"cpu, two memories", make_backend({.threads = 3, .two_memories = true})});
  const char* const required = std::getenv("SPECTX_TEST_REQUIRE_CUDA");
  if (required != nullptr && std::string(required) == "1") {
    throw std::runtime_error("SPECTX_TEST_REQUIRE_CUDA is set and no CUDA backend is there");
  }
  return all;
}

}  // namespace spectx::test
