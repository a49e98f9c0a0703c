// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "spectx/error.hpp"

namespace spectx::io {

/// `text` for a message: control characters, direction marks and invalid UTF-8 become \n, \u{202e}
/// or \xff; cut after 200 bytes.
std::string printable(std::string_view text);

/// 'text', printable.
std::string in_quotes(std::string_view text);

/// Throws FileError("file: place: reason"); an empty place is left out. `file` is made printable,
/// place and reason are printed as they are.
[[noreturn]] void fail(std::string_view file, const std::string& place, const std::string& reason);

}  // namespace spectx::io
