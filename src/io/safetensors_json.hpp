// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "spectx/io/safetensors.hpp"

namespace spectx::io {

/// A tensor's entry in the header, checked by itself only.
struct HeaderEntry {
  FileDType dtype = FileDType::f32;
  std::vector<index_t> shape;
  std::array<std::uint64_t, 2> offsets{};  // begin and end, from the start of the data
};

struct SafetensorsHeader {
  std::map<std::string, HeaderEntry, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;
};

/// The header's JSON. Throws FileError.
SafetensorsHeader parse_header(std::string_view json, std::string_view file);

/// A set's index: the file of each tensor, a plain name without a folder. Throws FileError.
std::map<std::string, std::string> parse_index(std::string_view json, std::string_view file);

std::optional<FileDType> file_dtype(std::string_view name) noexcept;

}  // namespace spectx::io
