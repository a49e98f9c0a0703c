// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/head_file.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "head_fit.hpp"

namespace spectx::io {
namespace {

DType dtype_of(const HeadPart& part, const HeadOptions& options, Backend& backend) {
  if (part.is_bias) return backend.compute_dtype(options.dtype);
  return part.cols == 0 ? DType::f32 : options.dtype;
}

/// Cuts every tensor out of the memory at `base`; gives the bytes that they take.
index_t place(std::byte* base, const std::vector<HeadPart>& parts, const HeadOptions& options,
              Backend& backend, HeadWeights& weights) {
  index_t bytes = 0;
  for (const HeadPart& part : parts) {
    const DType dtype = dtype_of(part, options, backend);
    std::byte* const at = base == nullptr ? nullptr : base + bytes;
    weights.*part.to = part.cols == 0 ? vector_view(at, dtype, part.rows)
                                      : matrix_view(at, dtype, part.rows, part.cols);
    bytes += PoolLayout::aligned((weights.*part.to).size() * dtype_bytes(dtype));
  }
  return bytes;
}

/// The row of the file that is row `r` of a head with halves: its pairs are neighbours there.
index_t row_in_file(index_t r, index_t dim) {
  const index_t within = r % dim;
  const index_t half = dim / 2;
  return r - within + 2 * (within % half) + within / half;
}

/// Reads parts into device memory through a block of host memory.
class Reader {
 public:
  Reader(Backend& backend, const HeadTensors& file, StreamView stream)
      : backend_(backend), file_(file), stream_(stream) {}

  void read(const HeadPart& part, TensorView to) {
    const auto count = static_cast<index_t>(part.names.size());
    for (index_t i = 0; i < count; ++i) {
      const std::string& name = part.names[static_cast<std::size_t>(i)];
      if (part.cols == 0) {
        read_vector(name, part.rows / count, i * part.rows / count, to);
      } else {
        read_matrix(name, part, to);
      }
    }
  }

 private:
  std::byte* staging(index_t bytes) {
    staging_.resize(std::max(staging_.size(), static_cast<std::size_t>(bytes)));
    return staging_.data();
  }

  void read_vector(const std::string& name, index_t size, index_t offset, TensorView to) {
    const index_t bytes = dtype_bytes(to.dtype);
    const TensorView block = vector_view(staging(size * bytes), to.dtype, size);
    file_.read_rows(name, 0, block);
    backend_.copy(to.as<std::byte>() + offset * bytes, block.data, size * bytes, stream_);
  }

  void read_matrix(const std::string& name, const HeadPart& part, TensorView to) {
    constexpr index_t kStagingBytes = index_t{1} << 20;
    const index_t row_bytes = part.cols * dtype_bytes(to.dtype);
    const index_t most = std::clamp<index_t>(kStagingBytes / row_bytes, 1, part.rows);
    const TensorView block = matrix_view(staging(most * row_bytes), to.dtype, most, part.cols);
    for (index_t first = 0; first < part.rows; first += most) {
      const index_t count = std::min(most, part.rows - first);
      if (part.heads == 0) {
        file_.read_rows(name, first, rows(block, 0, count));
      } else {
        for (index_t r = 0; r < count; ++r) {
          file_.read_rows(name, row_in_file(first + r, part.rows / part.heads), rows(block, r, 1));
        }
      }
      backend_.copy(to.as<std::byte>() + first * row_bytes, block.data, count * row_bytes, stream_);
    }
  }

  Backend& backend_;
  const HeadTensors& file_;
  StreamView stream_;
  std::vector<std::byte> staging_;
};

}  // namespace

LoadedHead load_head(Backend& backend, const std::string& path, const ModelShape& target,
                     TensorView embeddings, const HeadOptions& options, StreamView stream) {
  const HeadTensors file(path);
  HeadFit fit = fit_head(file, target, embeddings, options);
  LoadedHead head{.weights = std::move(fit.weights),
                  .storage = {},
                  .target = std::move(fit.target),
                  .notes = std::move(fit.notes)};
  const index_t bytes = place(nullptr, fit.parts, options, backend, head.weights);
  head.storage = Buffer(backend.memories().device, bytes);
  place(head.storage.data(), fit.parts, options, backend, head.weights);
  Reader reader(backend, file, stream);
  for (const HeadPart& part : fit.parts) reader.read(part, head.weights.*part.to);
  backend.synchronize(stream);
  return head;
}

}  // namespace spectx::io
