// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace spectx::test {

/// Calls of operator new in this program so far. Link support/counted_new.cpp, which replaces it.
long num_allocations() noexcept;
/// Lets the n-th call from now on, 0 the next one, throw std::bad_alloc; negative: none.
void fail_allocation(long n) noexcept;

}  // namespace spectx::test
