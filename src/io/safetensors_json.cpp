// SPDX-License-Identifier: Apache-2.0
#include "safetensors_json.hpp"

#include <nlohmann/json.hpp>

#include "file_error.hpp"
#include "shape_size.hpp"

namespace spectx::io {
namespace {

// Refuses every value; a format overrides what it allows. The parser keeps no recursion, and a
// handler refuses nesting that its format has not, so hostile nesting costs nothing.
class RefusingHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit RefusingHandler(std::string_view file) : file_(file) {}

  bool null() override { refuse_value("null"); }
  bool boolean(bool) override { refuse_value("a boolean"); }
  bool number_integer(number_integer_t) override { refuse_value("a negative number"); }
  bool number_unsigned(number_unsigned_t) override { refuse_value("a number"); }
  bool number_float(number_float_t, const string_t&) override {
    refuse_value("a number that is no integer of 64 bits");
  }
  bool string(string_t&) override { refuse_value("a string"); }
  bool binary(binary_t&) override { refuse_value("binary data"); }
  bool start_object(std::size_t) override { refuse_value("an object"); }
  bool start_array(std::size_t) override { refuse_value("an array"); }
  bool end_array() override { return true; }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    refuse("invalid JSON at byte " + std::to_string(position));
  }

 protected:
  [[noreturn]] void refuse(const std::string& reason) const { fail(file_, place(), reason); }
  [[noreturn]] void refuse_value(const char* what) const {
    refuse(std::string("unexpected ") + what);
  }
  virtual std::string place() const = 0;

 private:
  std::string_view file_;
};

// {"__metadata__": {key: string}, name: {"dtype": string, "shape": [integer], "data_offsets":
// [integer, integer]}}
class HeaderHandler final : public RefusingHandler {
 public:
  using RefusingHandler::RefusingHandler;

  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(std::size_t) override {
    if (depth_ == 2 || is_array_) refuse_value("an object");
    ++depth_;
    return true;
  }

  bool key(string_t& key) override {
    if (depth_ == 1) {
      start_entry(key);
    } else if (in_metadata_) {
      metadata_key_ = std::move(key);
    } else {
      start_field(key);
    }
    return true;
  }

  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata_) {
      if (!header_.metadata.emplace(metadata_key_, std::move(value)).second) {
        refuse("key " + in_quotes(metadata_key_) + " is there twice");
      }
      return true;
    }
    if (field_ != kDtype || depth_ != 2 || is_array_) refuse_value("a string");
    const auto dtype = file_dtype(value);
    if (!dtype) refuse("unknown dtype " + in_quotes(value));
    entry_->dtype = *dtype;
    return true;
  }

  bool start_array(std::size_t) override {
    const bool is_allowed = field_ == kShape || field_ == kOffsets;
    if (!is_allowed || depth_ != 2 || is_array_) refuse_value("an array");
    is_array_ = true;
    num_offsets_ = 0;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (!is_array_) refuse_value("a number");
    if (field_ == kShape) {
      if (value > kMaxIndex) {
        refuse("dimension " + std::to_string(value) + " does not fit in 63 bits");
      }
      entry_->shape.push_back(static_cast<index_t>(value));
    } else {
      if (num_offsets_ == 2) refuse("data_offsets must be two numbers");
      entry_->offsets[num_offsets_++] = value;
    }
    return true;
  }

  bool end_array() override {
    is_array_ = false;
    if (field_ == kOffsets && num_offsets_ != 2) refuse("data_offsets must be two numbers");
    return true;
  }

  bool end_object() override {
    --depth_;
    if (depth_ != 1) return true;
    if (!in_metadata_ && fields_ != (kDtype | kShape | kOffsets)) {
      refuse("dtype, shape and data_offsets must all be there");
    }
    in_metadata_ = false;
    field_ = 0;
    return true;
  }

 private:
  static constexpr unsigned kDtype = 1;
  static constexpr unsigned kShape = 2;
  static constexpr unsigned kOffsets = 4;

  void start_entry(string_t& name) {
    name_ = name;
    in_metadata_ = name == "__metadata__";
    fields_ = 0;
    if (in_metadata_) {
      if (std::exchange(has_metadata_, true)) refuse("is there twice");
      return;
    }
    const auto [at, is_new] = header_.tensors.emplace(std::move(name), HeaderEntry{});
    if (!is_new) refuse("is there twice");
    entry_ = &at->second;
  }

  void start_field(const string_t& name) {
    field_ = name == "dtype"          ? kDtype
             : name == "shape"        ? kShape
             : name == "data_offsets" ? kOffsets
                                      : 0;
    if (field_ == 0) refuse("unknown field " + in_quotes(name));
    if ((fields_ & field_) != 0) refuse(name + " is there twice");
    fields_ |= field_;
  }

  std::string place() const override {
    if (depth_ == 0 || (depth_ == 1 && name_.empty() && entry_ == nullptr)) return "header";
    return in_metadata_ ? "__metadata__" : "tensor " + in_quotes(name_);
  }

  SafetensorsHeader header_;
  HeaderEntry* entry_ = nullptr;
  std::string name_;
  std::string metadata_key_;
  int depth_ = 0;
  bool has_metadata_ = false;
  bool in_metadata_ = false;
  bool is_array_ = false;
  unsigned field_ = 0;   // the one being read
  unsigned fields_ = 0;  // those of this entry
  std::size_t num_offsets_ = 0;
};

// {"metadata": {key: scalar}, "weight_map": {tensor: file}}
class IndexHandler final : public RefusingHandler {
 public:
  using RefusingHandler::RefusingHandler;

  std::map<std::string, std::string> take() {
    if (!has_map_) refuse("weight_map is missing");
    return std::move(files_);
  }

  bool start_object(std::size_t) override {
    if (depth_ == 2) refuse_value("an object");
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool key(string_t& key) override {
    if (depth_ == 2) {
      tensor_ = std::move(key);
      return true;
    }
    in_map_ = key == "weight_map";
    if (!in_map_ && key != "metadata") refuse("unknown field " + in_quotes(key));
    if (std::exchange(in_map_ ? has_map_ : has_metadata_, true)) {
      refuse(key + " is there twice");
    }
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ != 2) refuse_value("a string");
    if (!in_map_) return true;
    const bool is_plain = !value.empty() && value != "." && value != ".." &&
                          value.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!is_plain) refuse(in_quotes(value) + " is not the name of a file beside the index");
    if (!files_.emplace(tensor_, std::move(value)).second) refuse("is there twice");
    return true;
  }
  bool null() override { return metadata_value("null"); }
  bool boolean(bool) override { return metadata_value("a boolean"); }
  bool number_integer(number_integer_t) override { return metadata_value("a number"); }
  bool number_unsigned(number_unsigned_t) override { return metadata_value("a number"); }
  bool number_float(number_float_t, const string_t&) override { return metadata_value("a number"); }

 private:
  bool metadata_value(const char* what) const {
    if (depth_ != 2 || in_map_) refuse_value(what);
    return true;
  }
  std::string place() const override {
    return depth_ == 2 && in_map_ ? "tensor " + in_quotes(tensor_) : "index";
  }

  std::map<std::string, std::string> files_;
  std::string tensor_;
  int depth_ = 0;
  bool in_map_ = false;
  bool has_map_ = false;
  bool has_metadata_ = false;
};

}  // namespace

SafetensorsHeader parse_header(std::string_view json, std::string_view file) {
  HeaderHandler handler(file);
  nlohmann::json::sax_parse(json.begin(), json.end(), &handler);
  return handler.take();
}

std::map<std::string, std::string> parse_index(std::string_view json, std::string_view file) {
  IndexHandler handler(file);
  nlohmann::json::sax_parse(json.begin(), json.end(), &handler);
  return handler.take();
}

}  // namespace spectx::io
