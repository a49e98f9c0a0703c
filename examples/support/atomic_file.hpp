// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <set>
#include <string>
#include <utility>

#include "spectx/error.hpp"

namespace spectx::support {

/// A file that appears under its name only when it is whole: written beside it, then renamed. A
/// link stays, and what it names is replaced.
class AtomicFile {
 public:
  /// Throws FileError when nothing can be written there, or when a device or a pipe is there, which
  /// a rename would do away with: call it before the long work starts.
  explicit AtomicFile(std::string path) : path_(std::move(path)), target_(path_) { check(); }

  /// Calls write(std::ostream&) and puts the result in place. Throws FileError; what was there
  /// stays then.
  template <class Write>
  void replace(Write&& write) const {
    const std::string name = make_temporary();
    std::ofstream file(name, std::ios::binary | std::ios::trunc);
    write(file);
    file.close();
    std::error_code error;
    if (file) std::filesystem::rename(name, target_, error);
    if (!file || error) {
      ::unlink(name.c_str());
      fail(error ? error.message() : "the disk may be full");
    }
  }

 private:
  void check() {
    std::error_code error;
    const auto status = std::filesystem::status(path_, error);
    if (std::filesystem::is_directory(status)) fail("it is a folder");
    if (std::filesystem::exists(status)) {
      if (!std::filesystem::is_regular_file(status)) fail("it is not a regular file");
      target_ = std::filesystem::canonical(path_, error).string();
      if (error) fail(error.message());
    }
    ::unlink(make_temporary().c_str());
  }

  std::string make_temporary() const {
    std::string name = target_ + ".XXXXXX";
    const int descriptor = ::mkstemp(name.data());
    if (descriptor < 0) fail(std::strerror(errno));
    ::fchmod(descriptor, 0644);
    ::close(descriptor);
    return name;
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw FileError(path_ + ": cannot be written: " + reason);
  }

  std::string path_;    // as it was given
  std::string target_;  // links followed
};

/// Whether none of the paths, empty ones aside, names the file of another.
inline bool are_different_files(std::initializer_list<std::string> paths) {
  namespace fs = std::filesystem;
  std::set<fs::path> files;
  for (const std::string& path : paths) {
    std::error_code ignored;
    if (path.empty()) continue;
    const fs::path whole = fs::weakly_canonical(fs::absolute(path, ignored), ignored);
    if (!files.insert(whole).second) return false;
  }
  return true;
}

}  // namespace spectx::support
