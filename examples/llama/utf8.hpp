// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

namespace spectx::llama {

/// What stands at the front of some bytes: a whole UTF-8 character of `bytes` bytes, the beginning
/// of one that the text cuts off (`is_cut`), or neither (both zero).
struct Utf8Front {
  std::size_t bytes = 0;
  bool is_cut = false;
};

/// Reads one character by the table of well-formed sequences (Unicode 15, table 3-7): no
/// surrogates, nothing overlong, nothing above U+10FFFF.
inline Utf8Front utf8_front(std::string_view text) {
  if (text.empty()) return {};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, false};
  if (lead < 0xc2 || lead > 0xf4) return {};
  const std::size_t bytes = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  for (std::size_t i = 1; i < bytes; ++i) {
    if (i == text.size()) return {0, true};
    unsigned low = 0x80;
    unsigned high = 0xbf;
    if (i == 1) {
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
    }
    if (byte(i) < low || byte(i) > high) return {};
  }
  return {bytes, false};
}

}  // namespace spectx::llama
