// SPDX-License-Identifier: Apache-2.0
#pragma once

// The version of these headers, by Semantic Versioning; CMake compares it with the package's.
// Before 1.0 a minor version may change the interface. No binary interface is kept from one version
// to the next: build a program with the headers of the libraries that it links.
#define SPECTX_VERSION_MAJOR 0
#define SPECTX_VERSION_MINOR 1
#define SPECTX_VERSION_PATCH 0

namespace spectx {

struct Version {
  int major, minor, patch;
  friend constexpr bool operator==(Version, Version) = default;
};

inline constexpr Version kVersion{SPECTX_VERSION_MAJOR, SPECTX_VERSION_MINOR, SPECTX_VERSION_PATCH};

}  // namespace spectx
