// SPDX-License-Identifier: Apache-2.0
#include "fuzz_rows.hpp"
#include "fuzz_target.hpp"
#include "spectx/io/safetensors.hpp"

bool spectx::test::reads(std::span<const std::byte> bytes) {
  try {
    const auto file = io::Safetensors::parse(bytes, "fuzz");
    for (const auto& [name, tensor] : file.tensors()) read_some_rows(file, file.at(name));
    return true;
  } catch (const FileError&) {
    return false;
  }
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  spectx::test::reads(std::as_bytes(std::span(data, size)));
  return 0;
}
