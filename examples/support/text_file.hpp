// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "spectx/error.hpp"

namespace spectx::support {

/// What is left of `file`, called `name` in errors. Throws FileError, also for more than 64 MiB:
/// no text is longer than any context.
inline std::string read_text(std::FILE* file, const std::string& name) {
  constexpr std::size_t kMostBytes = std::size_t{64} << 20;
  std::string text;
  char block[1 << 16];
  while (const std::size_t count = std::fread(block, 1, sizeof(block), file)) {
    text.append(block, count);
    if (text.size() > kMostBytes) throw FileError(name + ": has more than 64 MiB");
  }
  if (std::ferror(file) != 0) throw FileError(name + ": cannot be read: " + std::strerror(errno));
  return text;
}

inline std::string read_text_file(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (!file) throw FileError(path + ": cannot be opened: " + std::strerror(errno));
  return read_text(file.get(), path);
}

}  // namespace spectx::support
