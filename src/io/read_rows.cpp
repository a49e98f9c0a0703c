// SPDX-License-Identifier: Apache-2.0
#include "read_rows.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "file_error.hpp"
#include "spectx/half.hpp"

namespace spectx::io {
namespace {

constexpr index_t kChunk = 1024;  // elements decoded at a time; a multiple of every block

template <class T>
void convert_row(const StoredRows& source, const std::byte* row, T* out) {
  std::array<float, kChunk> buffer;
  for (index_t begin = 0; begin < source.cols; begin += kChunk) {
    const index_t count = std::min(kChunk, source.cols - begin);
    const std::byte* blocks = row + begin / source.block_elements * source.block_bytes;
    source.decode(blocks, count / source.block_elements, buffer.data());
    for (index_t i = 0; i < count; ++i) {
      out[begin + i] = from_float<T>(buffer[static_cast<std::size_t>(i)]);
    }
  }
}

[[noreturn]] void refuse(const StoredRows& source, const std::string& reason) {
  throw InvalidArgument(printable(source.file) + ": tensor " + in_quotes(source.name) + ": " +
                        reason);
}

void check_out(const StoredRows& source, index_t first_row, const TensorView& out) {
  if (out.rank != 1 && out.rank != 2) refuse(source, "rows are read into a vector or a matrix");
  if (out.dtype != DType::f32 && out.dtype != DType::f16 && out.dtype != DType::bf16) {
    refuse(source, std::string("cannot be read as ") + dtype_name(out.dtype));
  }
  const index_t rows = out.rank == 2 ? out.shape[0] : 1;
  const index_t cols = out.shape[out.rank == 2 ? 1 : 0];
  if (cols != source.cols) {
    refuse(source, "rows have " + std::to_string(source.cols) + " columns, " +
                       std::to_string(cols) + " were asked for");
  }
  if (first_row < 0 || rows < 0 || first_row > source.rows || rows > source.rows - first_row) {
    refuse(source, "has " + std::to_string(source.rows) + " rows, " + std::to_string(rows) +
                       " from " + std::to_string(first_row) + " were asked for");
  }
  if (rows > 0 && cols > 0 && out.data == nullptr) refuse(source, "nowhere to read it to");
}

}  // namespace

void read_rows(const StoredRows& source, index_t first_row, TensorView out) {
  check_out(source, first_row, out);
  const index_t rows = out.rank == 2 ? out.shape[0] : 1;
  if (rows == 0 || source.cols == 0) return;  // before a dimension without bytes is multiplied
  const index_t stride_bytes = out.rank == 2 ? out.strides[0] * dtype_bytes(out.dtype) : 0;
  const index_t row_bytes = source.cols / source.block_elements * source.block_bytes;
  const std::byte* from = source.data + first_row * row_bytes;
  auto* to = out.as<std::byte>();
  for (index_t r = 0; r < rows; ++r, from += row_bytes, to += stride_bytes) {
    void* row = to;
    if (source.same == out.dtype) {
      std::memcpy(row, from, static_cast<std::size_t>(row_bytes));
    } else if (out.dtype == DType::f32) {
      source.decode(from, source.cols / source.block_elements, static_cast<float*>(row));
    } else if (out.dtype == DType::f16) {
      convert_row(source, from, static_cast<half_t*>(row));
    } else {
      convert_row(source, from, static_cast<bf16_t*>(row));
    }
  }
}

}  // namespace spectx::io
