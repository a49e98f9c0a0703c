// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spectx/error.hpp"
#include "spectx/io/mapped_file.hpp"
#include "spectx/view.hpp"

namespace spectx::io {

/// Every element type that a safetensors file may hold.
enum class FileDType : std::uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

/// As the format writes it: "BF16".
const char* file_dtype_name(FileDType dtype) noexcept;
/// Bits of one element.
int file_dtype_bits(FileDType dtype) noexcept;
/// The library's type of the same bits, where there is one.
std::optional<DType> to_dtype(FileDType dtype) noexcept;

/// A tensor as it lies in its file: row-major, little-endian, not aligned to more than a byte.
/// Valid as long as the Safetensors.
struct SafetensorsTensor {
  std::string_view name;
  FileDType dtype = FileDType::f32;
  std::vector<index_t> shape;  // empty: one element
  std::span<const std::byte> bytes;
  std::size_t file = 0;  // index in Safetensors::files()

  /// Seen as a matrix: the last dimension is a row, the others are rows() together.
  index_t cols() const noexcept { return shape.empty() ? 1 : shape.back(); }
  index_t rows() const noexcept;
};

/// The tensors of a safetensors file or of a sharded set of them, checked as a whole when opened:
/// the header is well-formed, sizes agree with shapes, and tensors cover their file without holes
/// or overlaps. Move-only. Threads may share one. Errors are FileError and name the file, the
/// tensor and the reason.
class Safetensors {
 public:
  using Tensors = std::map<std::string, SafetensorsTensor, std::less<>>;

  /// Maps and keeps mapped. `path`: a file; a set's *.index.json; or a folder with
  /// model.safetensors.index.json or else model.safetensors. Shards lie beside their index.
  explicit Safetensors(const std::string& path);
  /// Reads one file from memory that the caller keeps alive and unchanged; `name` is for messages.
  static Safetensors parse(std::span<const std::byte> bytes, std::string name);
  Safetensors(Safetensors&&) noexcept = default;
  Safetensors& operator=(Safetensors&&) noexcept = default;
  ~Safetensors() = default;

  /// Null when there is none of that name.
  const SafetensorsTensor* find(std::string_view name) const noexcept;
  /// Throws FileError when there is none of that name.
  const SafetensorsTensor& at(std::string_view name) const;
  /// By name.
  const Tensors& tensors() const noexcept { return tensors_; }
  /// `__metadata__`; of a set: of its shards together, the first shard's value for each key.
  const std::map<std::string, std::string, std::less<>>& metadata() const noexcept {
    return metadata_;
  }

  /// Converts rows [first_row, first_row + out.shape[0]) into host memory of f32, f16 or bf16.
  /// @param out  [rows, cols], or [cols] for one row; may have a row stride
  /// Throws Unsupported unless the tensor is F32, F16 or BF16, InvalidArgument when the rows do not
  /// fit.
  void read_rows(const SafetensorsTensor& tensor, index_t first_row, TensorView out) const;

  /// What was opened: the file, the index or the name given to parse.
  const std::string& path() const noexcept { return path_; }
  /// The files that hold the tensors.
  const std::vector<std::string>& files() const noexcept { return files_; }

 private:
  Safetensors() = default;
  // Adds a file's tensors: those wanted, or all.
  void load(std::span<const std::byte> bytes, const std::string& file,
            const std::vector<std::string>* wanted);
  void load_set();
  void name_tensors();

  std::string path_;
  std::vector<std::string> files_;
  std::vector<MappedFile> mappings_;
  Tensors tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace spectx::io
