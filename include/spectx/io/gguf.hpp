// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spectx/error.hpp"
#include "spectx/io/dequantize.hpp"
#include "spectx/io/mapped_file.hpp"
#include "spectx/view.hpp"

namespace spectx::io {

/// Types of metadata values, with their numbers in the file.
enum class GgufType : std::uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

/// A metadata value as it lies in the file; Gguf::get decodes it.
struct GgufValue {
  GgufType type = GgufType::u8;  // an array's: of its elements
  bool is_array = false;
  index_t count = 1;  // elements
  std::span<const std::byte> bytes;
};

/// A tensor as it lies in the file. Valid as long as the Gguf.
struct GgufTensor {
  std::string_view name;
  GgmlType type = GgmlType::f32;
  std::vector<index_t> shape;  // row-major, 1 to 4 dimensions: ggml's `ne` reversed
  std::span<const std::byte> bytes;

  /// Seen as a matrix: the last dimension is a row, the others are rows() together.
  index_t cols() const noexcept { return shape.back(); }
  index_t rows() const noexcept;
};

/// A GGUF file (version 2 or 3, little-endian), checked as a whole when it is opened: every count,
/// length and offset lies inside the file, names are unique, tensors do not overlap. Move-only.
/// Threads may share one. Errors are FileError and name the file, the key or tensor and the reason.
class Gguf {
 public:
  /// Maps the file and keeps it mapped.
  explicit Gguf(const std::string& path);
  /// Reads from memory that the caller keeps alive and unchanged; `name` is for messages.
  static Gguf parse(std::span<const std::byte> bytes, std::string name);
  Gguf(Gguf&&) noexcept = default;
  Gguf& operator=(Gguf&&) noexcept = default;
  ~Gguf() = default;

  bool has(std::string_view key) const { return metadata_.contains(key); }
  /// The value of `key`. T: bool; std::(u)int32_t or 64, when the file's integer fits; float or
  /// double; std::string or string_view (valid as long as this); or a std::vector of those.
  /// Throws FileError when the key is missing or holds something else.
  template <class T>
  T get(std::string_view key) const;
  /// As get, but `otherwise` when the key is missing.
  template <class T>
  T get_or(std::string_view key, T otherwise) const {
    return has(key) ? get<T>(key) : std::move(otherwise);
  }
  const std::map<std::string_view, GgufValue>& metadata() const noexcept { return metadata_; }

  /// Null when there is none of that name.
  const GgufTensor* find(std::string_view name) const noexcept;
  /// Throws FileError when there is none of that name.
  const GgufTensor& at(std::string_view name) const;
  /// In the file's order.
  const std::vector<GgufTensor>& tensors() const noexcept { return tensors_; }

  /// Decodes rows [first_row, first_row + out.shape[0]) into host memory of f32, f16 or bf16.
  /// @param out  [rows, cols], or [cols] for one row; may have a row stride
  /// Throws Unsupported when the tensor's type cannot be decoded, InvalidArgument when the rows do
  /// not fit.
  void read_rows(const GgufTensor& tensor, index_t first_row, TensorView out) const;

  const std::string& path() const noexcept { return path_; }
  int version() const noexcept { return version_; }

 private:
  Gguf() = default;
  void load(std::span<const std::byte> bytes);

  MappedFile file_;
  std::string path_;
  int version_ = 0;
  std::map<std::string_view, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
  std::vector<std::size_t> by_name_;  // indices of tensors_
};

}  // namespace spectx::io
