// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstring>

#include "file_error.hpp"
#include "spectx/io/gguf.hpp"

namespace spectx::io {

static_assert(std::endian::native == std::endian::little, "the formats are read as they lie");

/// Reads a GGUF's fields one after another; whatever is not there is a FileError that names the
/// file, the place and the field.
class GgufReader {
 public:
  /// `bytes` and `file` outlive the reader.
  GgufReader(std::span<const std::byte> bytes, std::string_view file)
      : rest_(bytes), total_(bytes.size()), file_(file) {}

  /// What is being read, for messages: "key 'a.b'".
  void enter(std::string place) { place_ = std::move(place); }

  [[noreturn]] void refuse(const std::string& reason) const { fail(file_, place_, reason); }

  std::uint64_t position() const noexcept { return total_ - rest_.size(); }
  std::uint64_t remaining() const noexcept { return rest_.size(); }

  std::span<const std::byte> take(std::uint64_t count, const char* field) {
    if (count > rest_.size()) {
      refuse("truncated: " + std::string(field) + " needs " + std::to_string(count) +
             " bytes at offset " + std::to_string(position()) + ", " +
             std::to_string(rest_.size()) + " are left");
    }
    const auto taken = rest_.first(static_cast<std::size_t>(count));
    rest_ = rest_.subspan(static_cast<std::size_t>(count));
    return taken;
  }

  template <class T>
  T read(const char* field) {
    T value;
    std::memcpy(&value, take(sizeof(T), field).data(), sizeof(T));
    return value;
  }

  std::string_view string(const char* field) {
    const auto bytes = take(read<std::uint64_t>(field), field);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> rest_;
  std::uint64_t total_;
  std::string_view file_;
  std::string place_;
};

/// "string", "u32", ...; "type 77" for a number that is none.
std::string gguf_type_name(GgufType type);

/// Bytes of a value of fixed size, 0 for strings, arrays and numbers that are no type.
std::uint64_t gguf_type_bytes(GgufType type) noexcept;

/// What a whole file holds.
struct GgufContents {
  int version = 0;
  std::map<std::string_view, GgufValue> metadata;
  std::vector<GgufTensor> tensors;   // in the file's order
  std::vector<std::size_t> by_name;  // indices of tensors
};

/// Throws FileError. The contents point into `bytes`.
GgufContents parse_gguf(std::span<const std::byte> bytes, std::string_view file);

}  // namespace spectx::io
