// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "llama/utf8.hpp"

namespace spectx::llama {

/// GPT-2's alphabet writes byte b as the code point b where that is visible, else as 256 + its
/// rank.
inline std::array<int, 256> code_points_of_bytes() {
  std::array<int, 256> code_points{};
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool is_visible = (b > 32 && b < 127) || (b > 160 && b != 173);
    code_points[static_cast<std::size_t>(b)] = is_visible ? b : next++;
  }
  return code_points;
}

/// The byte that each code point below 324 stands for, or -1.
inline std::array<int, 324> bytes_of_code_points() {
  std::array<int, 324> bytes;
  bytes.fill(-1);
  const auto code_points = code_points_of_bytes();
  for (std::size_t b = 0; b < 256; ++b) {
    bytes[static_cast<std::size_t>(code_points[b])] = static_cast<int>(b);
  }
  return bytes;
}

/// Bytes of a token that is written in the alphabet; characters outside of it stand for themselves.
inline std::string from_alphabet(std::string_view token, const std::array<int, 324>& bytes) {
  std::string text;
  while (!token.empty()) {
    const std::size_t length = std::max<std::size_t>(utf8_front(token).bytes, 1);
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(token[i]); };
    std::size_t code_point = bytes.size();
    if (length == 1) code_point = byte(0);
    if (length == 2) code_point = (byte(0) & 0x1fU) << 6 | (byte(1) & 0x3fU);
    const int value = code_point < bytes.size() ? bytes[code_point] : -1;
    text +=
        value < 0 ? std::string(token.substr(0, length)) : std::string(1, static_cast<char>(value));
    token.remove_prefix(length);
  }
  return text;
}

}  // namespace spectx::llama
