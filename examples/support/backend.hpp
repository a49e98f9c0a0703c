// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "spectx/backend.hpp"

namespace spectx::support {

struct BackendOptions {
  std::string wanted = "auto";  // "cpu", "cuda", or the device where there is one
  int threads = 0;              // of the CPU; 0: one a core
  bool two_memories = false;    // of the CPU: keeps the tiers apart
  TraceSink trace{};
};

/// A backend and what a report says of it.
struct ChosenBackend {
  std::unique_ptr<Backend> backend;
  std::string name;    // "cpu" or "cuda"
  std::string device;  // the GPU's name, or the processor's
  std::string driver;  // of the GPU
};

/// Throws UsageError for "cuda" in a build without it or on a machine without a device.
ChosenBackend make_backend(const BackendOptions& options);

/// What the machine could give without swapping, and what the backend's device could give, now.
index_t available_host_bytes();
index_t available_device_bytes(const ChosenBackend& chosen);
index_t total_device_bytes(const ChosenBackend& chosen);

}  // namespace spectx::support
