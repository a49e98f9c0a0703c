// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace spectx::test {

/// Calls of operator new in this program so far. Link support/counted_new.cpp, which replaces it.
long num_allocations() noexcept;

}  // namespace spectx::test
