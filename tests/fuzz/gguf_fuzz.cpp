// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <type_traits>
#include <vector>

#include "fuzz_rows.hpp"
#include "fuzz_target.hpp"
#include "spectx/io/gguf.hpp"

namespace spectx::test {
namespace {

// One of these may be what the key holds; the others are refused with a FileError.
template <class... T>
void get_as(const io::Gguf& file, std::string_view key) {
  const auto get = [&]<class U>(std::type_identity<U>) {
    try {
      (void)file.get<U>(key);
    } catch (const FileError&) {
    }
  };
  (get(std::type_identity<T>{}), ...);
}

}  // namespace

bool reads(std::span<const std::byte> bytes) {
  try {
    const auto file = io::Gguf::parse(bytes, "fuzz");
    for (const auto& [key, value] : file.metadata()) {
      get_as<bool, std::int32_t, std::uint64_t, float, std::string, std::vector<bool>,
             std::vector<std::int32_t>, std::vector<double>, std::vector<std::string_view>>(file,
                                                                                            key);
    }
    for (const io::GgufTensor& tensor : file.tensors()) {
      read_some_rows(file, file.at(tensor.name));
    }
    return true;
  } catch (const FileError&) {
    return false;
  }
}

}  // namespace spectx::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  spectx::test::reads(std::as_bytes(std::span(data, size)));
  return 0;
}
