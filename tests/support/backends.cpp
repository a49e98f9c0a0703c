// SPDX-License-Identifier: Apache-2.0
#include "support/backends.hpp"

#include <cstdlib>
#include <iostream>

#include "spectx/cpu/backend.hpp"

#ifdef SPECTX_TEST_CUDA
#include "spectx/cuda/backend.hpp"
#endif

namespace spectx::test {

namespace {

bool is_set(const char* variable, const char* value) {
  const char* const found = std::getenv(variable);
  return found != nullptr && std::string(found) == value;
}

/// Ends the test program: Catch 2.13 crashes where a generator's expression throws.
[[noreturn]] void give_up(const char* why) {
  std::cerr << why << std::endl;
  std::_Exit(EXIT_FAILURE);
}

/// Null: this machine or this build has no CUDA device.
std::unique_ptr<Backend> make_cuda_backend() {
#ifdef SPECTX_TEST_CUDA
  if (cu::device_count() > 0) return cu::make_backend();
#endif
  if (is_set("SPECTX_TEST_REQUIRE_CUDA", "1")) {
    give_up("SPECTX_TEST_REQUIRE_CUDA is set and no CUDA backend is there");
  }
  return nullptr;
}

/// Made once: a test is many runs, and cuBLAS takes long to start.
std::shared_ptr<Backend> cuda_backend() {
  static const std::shared_ptr<Backend> backend = make_cuda_backend();
  return backend;
}

bool wants_cuda_alone() { return is_set("SPECTX_TEST_BACKEND", "cuda"); }

}  // namespace

bool is_slow_run() { return is_set("SPECTX_TEST_SLOW_RUN", "1"); }

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  if (wants_cuda_alone()) {
    std::unique_ptr<Backend> backend = make_cuda_backend();
    if (backend) return backend;
    give_up("SPECTX_TEST_BACKEND asks for a CUDA device, and none is there");
  }
  return make_cpu_backend({.threads = options.threads, .two_memories = options.two_memories});
}

std::unique_ptr<Backend> make_oracle() {
  return make_cpu_backend({.threads = 1, .two_memories = true});
}

std::vector<NamedBackend> backends() {
  std::vector<NamedBackend> all;
  if (!wants_cuda_alone()) {
    all.push_back({"cpu", make_backend({.threads = 2})});
    all.push_back({"cpu, two memories", make_backend({.threads = 3, .two_memories = true})});
  }
  if (cuda_backend()) all.push_back({"cuda", cuda_backend()});
  if (all.empty()) give_up("no backend to test");
  return all;
}

}  // namespace spectx::test
