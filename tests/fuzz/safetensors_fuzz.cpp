// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/safetensors.hpp"

#include "fuzz_rows.hpp"
#include "fuzz_target.hpp"
#include "io/safetensors_json.hpp"

namespace spectx::test {
namespace {

// A set's index, whose files a fuzzer has not.
bool reads_index(std::span<const std::byte> bytes) {
  try {
    io::parse_index({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "fuzz");
    return true;
  } catch (const FileError&) {
    return false;
  }
}

}  // namespace

bool reads(std::span<const std::byte> bytes) {
  try {
    const auto file = io::Safetensors::parse(bytes, "fuzz");
    for (const auto& [name, tensor] : file.tensors()) read_some_rows(file, file.at(name));
    return true;
  } catch (const FileError&) {
    return reads_index(bytes);
  }
}

}  // namespace spectx::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  spectx::test::reads(std::as_bytes(std::span(data, size)));
  return 0;
}
