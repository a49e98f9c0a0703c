// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "spectx/types.hpp"

namespace spectx::test {

/// Little-endian bytes of a GGUF file's parts.
class GgufWriter {
 public:
  template <class T>
  void number(T value) {
    const auto* bytes = reinterpret_cast<const char*>(&value);
    bytes_.append(bytes, sizeof(T));
  }
  void text(const std::string& value) {
    number(std::uint64_t{value.size()});
    bytes_ += value;
  }
  void meta(const std::string& key, const std::string& value) {
    head(key, 8);
    text(value);
  }
  void meta(const std::string& key, index_t value) {
    head(key, 4);
    number(static_cast<std::uint32_t>(value));
  }
  void meta(const std::string& key, double value) {
    head(key, 6);
    number(static_cast<float>(value));
  }
  void meta(const std::string& key, const std::vector<std::string>& values) {
    head(key, 9);
    number(std::uint32_t{8});
    number(std::uint64_t{values.size()});
    for (const std::string& value : values) text(value);
  }
  void meta(const std::string& key, const std::vector<std::int32_t>& values) {
    head(key, 9);
    number(std::uint32_t{5});
    number(std::uint64_t{values.size()});
    for (const std::int32_t value : values) number(value);
  }
  void pad() { bytes_.resize((bytes_.size() + 31) / 32 * 32); }
  void raw(const void* data, std::size_t bytes) {
    bytes_.append(static_cast<const char*>(data), bytes);
  }
  std::uint64_t keys() const { return keys_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void head(const std::string& key, std::uint32_t type) {
    text(key);
    number(type);
    ++keys_;
  }
  std::string bytes_;
  std::uint64_t keys_ = 0;
};

}  // namespace spectx::test
