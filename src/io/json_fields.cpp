// SPDX-License-Identifier: Apache-2.0
#include "json_fields.hpp"

#include <cmath>
#include <utility>

#include "file_error.hpp"

namespace spectx::io {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMostCount = std::uint64_t{1} << 31;
constexpr std::uint64_t kMostLayers = std::uint64_t{1} << 20;

}  // namespace

JsonFields::JsonFields(json fields, std::string where)
    : fields_(std::move(fields)), where_(std::move(where)) {
  if (!fields_.is_object()) fail("not a JSON object");
}

JsonFields JsonFields::parse(std::string_view text, std::string_view file) {
  json fields = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (fields.is_discarded()) io::fail(file, "", "not JSON");
  return {std::move(fields), printable(file)};
}

bool JsonFields::has(const char* key) const { return find(key) != nullptr; }

std::optional<index_t> JsonFields::count(const char* key) const {
  const json* const value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_unsigned() || value->get<std::uint64_t>() < 1 ||
      value->get<std::uint64_t>() > kMostCount) {
    refuse(key, "a whole number of 1 to 2^31");
  }
  return value->get<index_t>();
}

index_t JsonFields::needed_count(const char* key) const {
  const auto value = count(key);
  if (!value) fail(std::string(key) + " is missing");
  return *value;
}

std::optional<float> JsonFields::number(const char* key) const {
  const json* const value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) refuse(key, "a number");
  const auto number = value->get<double>();
  if (!(std::abs(number) < 1e30)) refuse(key, "a number below 1e30");
  return static_cast<float>(number);
}

std::optional<float> JsonFields::positive(const char* key) const {
  const auto value = number(key);
  if (value && *value <= 0) refuse(key, "a positive number");
  return value;
}

std::optional<bool> JsonFields::flag(const char* key) const {
  const json* const value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) refuse(key, "true or false");
  return value->get<bool>();
}

std::optional<std::string> JsonFields::text(const char* key) const {
  const json* const value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse(key, "a string");
  return value->get<std::string>();
}

std::optional<std::vector<index_t>> JsonFields::ascending(const char* key) const {
  constexpr const char* kWanted = "an ascending list of layers such as [1, 14, 26]";
  const json* const value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_array() || value->empty()) refuse(key, kWanted);
  std::vector<index_t> numbers;
  for (const json& number : *value) {
    if (!number.is_number_unsigned() || number.get<std::uint64_t>() > kMostLayers) {
      refuse(key, kWanted);
    }
    const auto layer = number.get<index_t>();
    if (!numbers.empty() && layer <= numbers.back()) refuse(key, kWanted);
    numbers.push_back(layer);
  }
  return numbers;
}

std::optional<JsonFields> JsonFields::object(const char* key) const {
  const json* const value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) refuse(key, "an object");
  return JsonFields(*value, where_ + ": " + key);
}

std::optional<std::string> JsonFields::first_text(const char* key) const {
  const json* const value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_array() || value->empty() || !value->front().is_string()) {
    refuse(key, "a list of strings");
  }
  return value->front().get<std::string>();
}

void JsonFields::set(const char* key, std::string_view value) {
  json parsed = json::parse(value, nullptr, /*allow_exceptions=*/false);
  fields_[key] = parsed.is_discarded() ? json(std::string(value)) : std::move(parsed);
}

void JsonFields::fail(const std::string& reason) const { throw FileError(where_ + ": " + reason); }

const json* JsonFields::find(const char* key) const {
  const auto at = fields_.find(key);
  return at == fields_.end() || at->is_null() ? nullptr : &*at;
}

void JsonFields::refuse(const char* key, const char* wanted) const {
  fail(std::string(key) + " must be " + wanted);
}

}  // namespace spectx::io
