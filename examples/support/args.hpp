// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "spectx/types.hpp"

namespace spectx::support {

/// The command line is wrong: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// One `--name` that a program knows.
struct Flag {
  std::string_view name;   // with its dashes
  std::string_view value;  // what it takes, for the help: "N", "FILE"; empty: a switch
  std::string_view help;   // may have several lines
};

/// A parsed command line: `--name value`, `--name=value` and switches. A value that looks like one
/// of the flags must be given with `=`; only a TEXT may be empty. Getters name the flag in their
/// errors.
class Args {
 public:
  /// Throws UsageError for an unknown, repeated or incomplete flag and for anything else.
  Args(int argc, const char* const* argv, std::span<const Flag> flags);

  bool has(std::string_view name) const { return values_.contains(name); }
  std::string text(std::string_view name, std::string_view otherwise = "") const {
    return std::string(has(name) ? values_.at(name) : otherwise);
  }
  /// A whole number in [min, max]. Throws UsageError.
  index_t count(std::string_view name, index_t otherwise, index_t min = 0,
                index_t max = std::numeric_limits<index_t>::max()) const;
  /// A finite decimal number in [min, max]. Throws UsageError.
  double number(std::string_view name, double otherwise, double min, double max) const;
  /// A list of numbers in [min, max] with commas between them. Throws UsageError.
  template <class Number>
  std::vector<Number> numbers(std::string_view name, std::string_view otherwise, Number min,
                              Number max) const;
  /// Bytes: a number with K, M, G or T for powers of 1024 ("80G", "0.5G", "1GiB"), at least `min`
  /// and below 2^62. Throws UsageError.
  index_t bytes(std::string_view name, index_t otherwise, index_t min = 0) const;
  /// One of `choices`, `otherwise` without the flag. Throws UsageError.
  std::string choice(std::string_view name, std::string_view otherwise,
                     std::initializer_list<std::string_view> choices) const;

 private:
  [[noreturn]] void refuse(std::string_view name, const std::string& wanted) const {
    throw UsageError(std::string(name) + " must be " + wanted + ", not \"" + text(name) + "\"");
  }

  std::map<std::string_view, std::string_view> values_;  // into argv and the flags
};

inline Args::Args(int argc, const char* const* argv, std::span<const Flag> flags) {
  const auto find = [&](std::string_view name) {
    return std::find_if(flags.begin(), flags.end(), [&](const Flag& f) { return f.name == name; });
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const std::size_t equals = word.starts_with("--") ? word.find('=') : std::string_view::npos;
    const std::string_view name = word.substr(0, equals);
    const auto flag = find(name);
    const std::string shown(name);
    if (flag == flags.end()) throw UsageError("unknown argument \"" + shown + "\"");
    if (has(name)) throw UsageError(shown + " is given twice");
    std::string_view value;
    bool is_missing = false;
    if (flag->value.empty()) {
      if (equals != std::string_view::npos) throw UsageError(shown + " takes no value");
    } else if (equals != std::string_view::npos) {
      value = word.substr(equals + 1);
    } else if (i + 1 < argc && find(argv[i + 1]) == flags.end()) {
      value = argv[++i];
    } else {
      is_missing = true;
    }
    if (is_missing || (value.empty() && !flag->value.empty() && flag->value != "TEXT")) {
      throw UsageError(shown + " needs a value: " + shown + " " + std::string(flag->value));
    }
    values_.emplace(flag->name, value);
  }
}

inline index_t Args::count(std::string_view name, index_t otherwise, index_t min,
                           index_t max) const {
  if (!has(name)) return otherwise;
  const std::string_view value = values_.at(name);
  index_t n = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
  if (error != std::errc() || end != value.data() + value.size() || n < min || n > max) {
    refuse(name, max == std::numeric_limits<index_t>::max()
                     ? "a whole number from " + std::to_string(min)
                     : "a whole number from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return n;
}

inline double Args::number(std::string_view name, double otherwise, double min, double max) const {
  if (!has(name)) return otherwise;
  const std::string_view value = values_.at(name);
  double x = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), x);
  if (error != std::errc() || end != value.data() + value.size() || !(x >= min && x <= max)) {
    std::ostringstream range;
    range << "a number from " << min << " to " << max;
    refuse(name, range.str());
  }
  return x;
}

inline index_t Args::bytes(std::string_view name, index_t otherwise, index_t min) const {
  if (!has(name)) return otherwise;
  const std::string_view value = values_.at(name);
  double x = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), x);
  std::string_view unit(end, static_cast<std::size_t>(value.data() + value.size() - end));
  if (unit.ends_with("iB")) unit.remove_suffix(2);
  constexpr std::string_view kUnits = "KMGT";
  const std::size_t power = unit.empty() ? 0 : kUnits.find(unit.front()) + 1;
  const double scaled = x * std::ldexp(1.0, 10 * static_cast<int>(power));
  if (error != std::errc() || unit.size() > 1 || (!unit.empty() && power == 0) ||
      !(scaled >= static_cast<double>(min) && scaled < 0x1p62)) {
    const std::string least = min > 0 ? ", at least " + std::to_string(min) : "";
    refuse(name, "bytes" + least + ", with K, M, G or T for powers of 1024 (such as 80G)");
  }
  return static_cast<index_t>(scaled);
}

inline std::string Args::choice(std::string_view name, std::string_view otherwise,
                                std::initializer_list<std::string_view> choices) const {
  if (!has(name)) return std::string(otherwise);
  if (std::find(choices.begin(), choices.end(), values_.at(name)) == choices.end()) {
    std::string wanted;
    for (const std::string_view choice : choices) {
      wanted += (wanted.empty() ? "" : ", ") + std::string(choice);
    }
    refuse(name, "one of " + wanted);
  }
  return text(name);
}

/// The parts of a list with commas, empty ones too.
inline std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    parts.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

template <class Number>
std::vector<Number> Args::numbers(std::string_view name, std::string_view otherwise, Number min,
                                  Number max) const {
  std::vector<Number> all;
  for (const std::string& part : split(text(name, otherwise))) {
    Number n{};
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), n);
    if (error != std::errc() || end != part.data() + part.size() || !(n >= min && n <= max)) {
      std::ostringstream wanted;
      wanted << "numbers from " << min << " to " << max << ", with commas between them";
      refuse(name, wanted.str());
    }
    all.push_back(n);
  }
  return all;
}

/// --dtype of weights and cached rows: bf16 unless said. Throws UsageError.
inline DType weights_dtype(const Args& args) {
  const std::string name = args.choice("--dtype", "bf16", {"bf16", "f16", "f32"});
  return name == "bf16" ? DType::bf16 : name == "f16" ? DType::f16 : DType::f32;
}

/// --head-theta; none: the file's. Throws UsageError.
inline std::optional<float> head_theta(const Args& args) {
  if (!args.has("--head-theta")) return std::nullopt;
  return static_cast<float>(args.number("--head-theta", 0, 1.001, 1e12));
}

/// --host-dtype; none: the cached rows' own type. Throws UsageError.
inline std::optional<DType> host_dtype(const Args& args) {
  const std::string name = args.choice("--host-dtype", "", {"fp8", "int8"});
  if (name.empty()) return std::nullopt;
  return name == "fp8" ? DType::f8_e4m3 : DType::i8;
}

/// The flags as the lines of a help text.
inline std::string describe(std::span<const Flag> flags) {
  constexpr std::size_t kColumn = 26;
  std::string lines;
  for (const Flag& flag : flags) {
    std::string name("  ");
    name.append(flag.name);
    if (!flag.value.empty()) name.append(1, ' ').append(flag.value);
    lines += name;
    std::size_t used = name.size();
    for (std::size_t at = 0; at < flag.help.size();) {
      const std::size_t end = std::min(flag.help.find('\n', at), flag.help.size());
      if (used >= kColumn || at > 0) {
        lines += "\n";
        used = 0;
      }
      lines += std::string(kColumn - used, ' ') + std::string(flag.help.substr(at, end - at));
      at = end + 1;
    }
    lines += "\n";
  }
  return lines;
}

}  // namespace spectx::support
