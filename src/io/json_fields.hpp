// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spectx/types.hpp"

namespace spectx::io {

/// A JSON object of a file that nobody trusts. Errors are FileError and name the file and the key.
/// A key whose value is null is missing.
class JsonFields {
 public:
  /// `where`: file, and object in it, for messages; printable.
  JsonFields(nlohmann::json fields, std::string where);
  /// Throws FileError unless `text` is an object; `file` need not be printable.
  static JsonFields parse(std::string_view text, std::string_view file);

  bool has(const char* key) const;
  /// A whole number of 1 to 2^31.
  std::optional<index_t> count(const char* key) const;
  index_t needed_count(const char* key) const;
  /// Below 1e30 in size; positive(): above 0.
  std::optional<float> positive(const char* key) const;
  std::optional<float> number(const char* key) const;
  std::optional<bool> flag(const char* key) const;
  std::optional<std::string> text(const char* key) const;
  /// Whole numbers of 0 to 2^20 that ascend.
  std::optional<std::vector<index_t>> ascending(const char* key) const;
  /// An object of its own.
  std::optional<JsonFields> object(const char* key) const;
  /// The first of an array of strings.
  std::optional<std::string> first_text(const char* key) const;

  /// Sets a key to what the JSON text `value` holds, to the text itself if it is none.
  void set(const char* key, std::string_view value);

  [[noreturn]] void fail(const std::string& reason) const;
  const std::string& where() const noexcept { return where_; }

 private:
  const nlohmann::json* find(const char* key) const;
  [[noreturn]] void refuse(const char* key, const char* wanted) const;

  nlohmann::json fields_;
  std::string where_;
};

}  // namespace spectx::io
