// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

#include "spectx/types.hpp"

namespace spectx {

/// Base of everything that spectx throws.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A precondition of a public call does not hold; nothing was changed.
class InvalidArgument : public Error {
 public:
  using Error::Error;
};

/// Valid, but not implemented by this build or backend.
class Unsupported : public Error {
 public:
  using Error::Error;
};

/// A file cannot be read or does not hold what its format promises. Names the file and the place.
class FileError : public Error {
 public:
  using Error::Error;
};

/// A tier has no room; nothing was changed and the pool stays usable.
class OutOfMemory : public Error {
 public:
  /// `more` ends the message: what else tells why.
  OutOfMemory(Tier tier, index_t bytes_asked, index_t bytes_free, const std::string& more = {})
      : Error("out of " + std::string(tier_name(tier)) + " memory: " + std::to_string(bytes_asked) +
              " bytes asked, " + std::to_string(bytes_free) + " bytes free" + more),
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
