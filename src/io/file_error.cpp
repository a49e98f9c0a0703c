// SPDX-License-Identifier: Apache-2.0
#include "file_error.hpp"

#include <array>
#include <cstdio>

namespace spectx::io {
namespace {

constexpr std::size_t kMaxPrinted = 200;  // bytes of a name in a message

struct Utf8Char {
  std::size_t bytes = 0;  // 0: not UTF-8
  std::uint32_t code = 0;
};

Utf8Char first_char(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return {1, lead};
  const std::size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < bytes) return {};
  std::uint32_t code = lead & (0xffU >> (bytes + 1));
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code = (code << 6) | (byte(i) & 0x3fU);
  }
  constexpr std::array<std::uint32_t, 5> kSmallest{0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
  if (code < kSmallest[bytes] || code > 0x10ffff || is_surrogate) return {};
  return {bytes, code};
}

// What could move the cursor, colour the terminal or reorder the line.
bool is_unsafe(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x061c || code == 0xfeff ||
         (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
         (code >= 0x2060 && code <= 0x206f);
}

void append_escaped(std::string& out, const char* format, std::uint32_t value) {
  std::array<char, 16> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, static_cast<unsigned>(value));
  out += buffer.data();
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  std::size_t i = 0;
  while (i < text.size() && i < kMaxPrinted) {
    const auto [bytes, code] = first_char(text.substr(i));
    if (bytes == 0) {
      append_escaped(out, "\\x%02x", static_cast<unsigned char>(text[i]));
    } else if (code == '\n') {
      out += "\\n";
    } else if (code == '\\') {
      out += "\\\\";
    } else if (is_unsafe(code)) {
      append_escaped(out, code < 0x80 ? "\\x%02x" : "\\u{%04x}", code);
    } else {
      out += text.substr(i, bytes);
    }
    i += bytes == 0 ? 1 : bytes;
  }
  if (i < text.size()) out += "...";
  return out;
}

std::string in_quotes(std::string_view text) {
  std::string out(1, '\'');
  out += printable(text);
  out += '\'';
  return out;
}

void fail(std::string_view file, const std::string& place, const std::string& reason) {
  std::string message = printable(file) + ": ";
  if (!place.empty()) message += place + ": ";
  throw FileError(message + reason);
}

}  // namespace spectx::io
