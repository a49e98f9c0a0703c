// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace spectx::test {

/// Reads all that `file` holds and decodes rows of every tensor. False when the loader refuses the
/// file; anything but spectx::FileError escapes.
bool reads(std::span<const std::byte> file);

}  // namespace spectx::test

/// libFuzzer's entry point; the corpus is replayed through it too.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
