// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

#include "file_error.hpp"

namespace spectx::io {
namespace {

class Descriptor {
 public:
  // Non-blocking, so that a named pipe is refused below instead of waited for.
  explicit Descriptor(const std::string& path)
      : value_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const noexcept { return value_; }

 private:
  int value_;
};

std::string error_text(int code) { return std::generic_category().message(code); }

}  // namespace

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  // A path is cut at its first NUL by the system; another file than the one named would be opened.
  if (path_.find('\0') != std::string::npos) fail(path_, "", "a path cannot hold a NUL");
  const Descriptor file(path_);
  if (file.get() < 0) fail(path_, "", "cannot open: " + error_text(errno));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail(path_, "", "cannot stat: " + error_text(errno));
  if (!S_ISREG(status.st_mode)) fail(path_, "", "not a regular file");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size == 0) return;  // nothing to map; the formats report the file as truncated
  if (size > SIZE_MAX) fail(path_, "", "too large for this machine's address space");
  void* address =
      ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) fail(path_, "", "cannot map: " + error_text(errno));
  bytes_ = {static_cast<const std::byte*>(address), static_cast<std::size_t>(size)};
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace spectx::io
