// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace spectx::io {

/// A regular file mapped read-only. Move-only; owns the mapping, not the descriptor. Bytes stay at
/// their address when the object moves. Whoever shrinks the file while it is mapped makes a later
/// read fail with SIGBUS, as with every mapping.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws FileError when the file cannot be opened, is not a regular file, or cannot be mapped.
  explicit MappedFile(std::string path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
  std::span<const std::byte> bytes_;
};

}  // namespace spectx::io
