// SPDX-License-Identifier: Apache-2.0
// config.json of a draft head.
#include "fuzz_target.hpp"
#include "io/head_spec.hpp"
#include "spectx/rope.hpp"

namespace spectx::test {

bool reads(std::span<const std::byte> bytes) {
  try {
    const io::HeadSpec spec =
        io::parse_head_config({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "fuzz");
    rope_frequencies(spec.rope, 128);
    return true;
  } catch (const FileError&) {
    return false;
  } catch (const Unsupported&) {
    return false;
  }
}

}  // namespace spectx::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  spectx::test::reads(std::as_bytes(std::span(data, size)));
  return 0;
}
