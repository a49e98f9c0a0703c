// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "spectx/io/safetensors.hpp"

namespace spectx::test {

/// The elements of a tensor, whose type is T.
template <class T>
std::vector<T> values(const io::Safetensors& file, const std::string& name) {
  const auto& bytes = file.at(name).bytes;
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

}  // namespace spectx::test
