// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <string_view>

#include "spectx/error.hpp"
#include "support/args.hpp"

namespace spectx::support {

/// Throws FileError unless all that was written to standard output has arrived there.
inline void flush_output() {
  std::cout.flush();
  if (!std::cout || std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    throw FileError("standard output cannot be written");
  }
}

/// Runs `body() -> int`, flushes standard output, and turns what is thrown into one line on
/// standard error and an exit code: 2 for a UsageError, 1 for everything else.
template <class Body>
int run_program(std::string_view name, Body&& body) {
  try {
    const int exit_code = body();
    flush_output();
    return exit_code;
  } catch (const UsageError& error) {
    std::cerr << name << ": " << error.what() << " (see " << name << " --help)\n";
    return 2;
  } catch (const std::bad_alloc&) {
    std::cerr << name << ": not enough memory\n";
  } catch (const std::exception& error) {
    std::cerr << name << ": " << error.what() << "\n";
  }
  return 1;
}

}  // namespace spectx::support
