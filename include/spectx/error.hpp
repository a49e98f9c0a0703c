// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

#include "spectx/types.hpp"

namespace spectx {

/// The class of an Error as a number, for callers in other languages: these do not change.
enum class ErrorCode : std::int32_t {
  failed = 1,
  invalid_argument = 2,
  unsupported = 3,
  file = 4,
  out_of_memory = 5,
  device = 6,
};

/// Base of everything that spectx throws, but for std::bad_alloc of the process's own objects and
/// what a host's callbacks throw.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what, ErrorCode code = ErrorCode::failed)
      : std::runtime_error(what), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

/// A precondition of a public call does not hold; nothing was changed.
class InvalidArgument : public Error {
 public:
  explicit InvalidArgument(const std::string& what) : Error(what, ErrorCode::invalid_argument) {}
};

/// Valid, but not implemented by this build or backend.
class Unsupported : public Error {
 public:
  explicit Unsupported(const std::string& what) : Error(what, ErrorCode::unsupported) {}
};

/// A file cannot be read or does not hold what its format promises. Names the file and the place.
class FileError : public Error {
 public:
  explicit FileError(const std::string& what) : Error(what, ErrorCode::file) {}
};

/// A tier has no room; nothing was changed and the pool stays usable.
class OutOfMemory : public Error {
 public:
  /// `more` ends the message: what else tells why.
  OutOfMemory(Tier tier, index_t bytes_asked, index_t bytes_free, const std::string& more = {})
      : Error("out of " + std::string(tier_name(tier)) + " memory: " + std::to_string(bytes_asked) +
                  " bytes asked, " + std::to_string(bytes_free) + " bytes free" + more,
              ErrorCode::out_of_memory),
        tier_(tier),
        bytes_asked_(bytes_asked),
        bytes_free_(bytes_free) {}

  Tier tier() const noexcept { return tier_; }
  index_t bytes_asked() const noexcept { return bytes_asked_; }
  index_t bytes_free() const noexcept { return bytes_free_; }

 private:
  Tier tier_;
  index_t bytes_asked_;
  index_t bytes_free_;
};

/// Throws InvalidArgument(what) unless `holds`; `what` says where: "Class::call: x must be ...".
inline void expects(bool holds, const char* what) {
  if (!holds) throw InvalidArgument(what);
}

}  // namespace spectx
