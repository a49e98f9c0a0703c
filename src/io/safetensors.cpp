// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/safetensors.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <utility>

#include "file_error.hpp"
#include "read_rows.hpp"
#include "safetensors_json.hpp"
#include "shape_size.hpp"

namespace spectx::io {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is read as it lies");

constexpr std::uint64_t kMaxJsonBytes = 100'000'000;  // the format's limit for the header

struct NamedDType {
  FileDType dtype;
  const char* name;
  int bits;
  std::optional<DType> same;
};

constexpr NamedDType kDTypes[] = {
    {FileDType::boolean, "BOOL", 8, {}},
    {FileDType::f4, "F4", 4, {}},
    {FileDType::f6_e2m3, "F6_E2M3", 6, {}},
    {FileDType::f6_e3m2, "F6_E3M2", 6, {}},
    {FileDType::u8, "U8", 8, {}},
    {FileDType::i8, "I8", 8, DType::i8},
    {FileDType::f8_e5m2, "F8_E5M2", 8, {}},
    {FileDType::f8_e4m3, "F8_E4M3", 8, DType::f8_e4m3},
    {FileDType::f8_e8m0, "F8_E8M0", 8, {}},
    {FileDType::i16, "I16", 16, {}},
    {FileDType::u16, "U16", 16, {}},
    {FileDType::f16, "F16", 16, DType::f16},
    {FileDType::bf16, "BF16", 16, DType::bf16},
    {FileDType::i32, "I32", 32, DType::i32},
    {FileDType::u32, "U32", 32, {}},
    {FileDType::f32, "F32", 32, DType::f32},
    {FileDType::c64, "C64", 64, {}},
    {FileDType::f64, "F64", 64, {}},
    {FileDType::i64, "I64", 64, {}},
    {FileDType::u64, "U64", 64, {}},
};

const NamedDType& named(FileDType dtype) noexcept {
  return kDTypes[static_cast<std::size_t>(dtype)];
}

std::string_view text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Sections {
  std::string_view header;
  std::span<const std::byte> data;
};

Sections split(std::span<const std::byte> bytes, const std::string& file) {
  std::uint64_t size = 0;
  if (bytes.size() < sizeof(size)) {
    fail(file, "header",
         "truncated: the file has " + std::to_string(bytes.size()) +
             " bytes, the header's length takes 8");
  }
  std::memcpy(&size, bytes.data(), sizeof(size));
  const auto rest = bytes.subspan(sizeof(size));
  if (size > kMaxJsonBytes) {
    fail(file, "header",
         "a length of " + std::to_string(size) + " bytes is above the format's " +
             std::to_string(kMaxJsonBytes) + "; not a safetensors file?");
  }
  if (size > rest.size()) {
    fail(file, "header",
         "truncated: its length is " + std::to_string(size) + " bytes, " +
             std::to_string(rest.size()) + " are left");
  }
  const auto header = rest.first(static_cast<std::size_t>(size));
  if (header.empty() || header.front() != std::byte{'{'}) {
    fail(file, "header", "does not start with '{'; not a safetensors file?");
  }
  return {text(header), rest.subspan(header.size())};
}

// The bytes that the entry's shape takes.
std::uint64_t expected_bytes(const HeaderEntry& entry, const std::string& file,
                             const std::string& place) {
  const ShapeSize size = shape_size(entry.shape);
  std::uint64_t bits = 0;
  const bool fits =
      size.fits &&
      multiply(size.elements, static_cast<std::uint64_t>(named(entry.dtype).bits), bits);
  if (!fits) fail(file, place, "its size does not fit in 64 bits");
  if (size.is_empty) return 0;
  if (bits % 8 != 0) fail(file, place, "its elements do not fill whole bytes");
  return bits / 8;
}

// Tensors follow each other from the first byte of the data to the last.
void check_coverage(const SafetensorsHeader& header, std::uint64_t data_bytes,
                    const std::string& file) {
  std::vector<const std::pair<const std::string, HeaderEntry>*> order;
  for (const auto& entry : header.tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->second.offsets < b->second.offsets; });
  std::uint64_t end = 0;
  for (const auto* entry : order) {
    const auto& offsets = entry->second.offsets;
    const std::string place = "tensor " + in_quotes(entry->first);
    if (offsets[0] < end) fail(file, place, "overlaps another tensor");
    if (offsets[0] > end) {
      fail(file, place, "a hole of " + std::to_string(offsets[0] - end) + " bytes precedes it");
    }
    end = offsets[1];
  }
  if (end != data_bytes) {
    fail(file, "",
         "truncated or corrupt: tensors take " + std::to_string(end) + " bytes, the file holds " +
             std::to_string(data_bytes));
  }
}

SafetensorsHeader parse_file(const Sections& sections, const std::string& file) {
  SafetensorsHeader header = parse_header(sections.header, file);
  const std::uint64_t data_bytes = sections.data.size();
  for (const auto& [name, entry] : header.tensors) {
    const std::string place = "tensor " + in_quotes(name);
    const auto [begin, end] = entry.offsets;
    if (begin > end) {
      fail(file, place,
           "data_offsets end before they begin: " + std::to_string(begin) + ", " +
               std::to_string(end));
    }
    if (end > data_bytes) {
      fail(file, place,
           "truncated or corrupt: ends at byte " + std::to_string(end) +
               " of the data, which has " + std::to_string(data_bytes));
    }
    const std::uint64_t expected = expected_bytes(entry, file, place);
    if (end - begin != expected) {
      fail(file, place,
           "data_offsets span " + std::to_string(end - begin) +
               " bytes, its shape and dtype need " + std::to_string(expected));
    }
  }
  check_coverage(header, data_bytes, file);
  return header;
}

SafetensorsTensor placed(HeaderEntry entry, std::span<const std::byte> data, std::size_t file) {
  const auto [begin, end] = entry.offsets;
  return {
      .name = {},
      .dtype = entry.dtype,
      .shape = std::move(entry.shape),
      .bytes = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
      .file = file};
}

std::string model_in(const std::filesystem::path& path) {
  std::error_code ignored;  // whatever is wrong with the path, opening it says so
  if (!std::filesystem::is_directory(path, ignored)) return path.string();
  for (const char* name : {"model.safetensors.index.json", "model.safetensors"}) {
    if (std::filesystem::exists(path / name, ignored)) return (path / name).string();
  }
  fail(path.string(), "",
       "the folder holds neither model.safetensors.index.json nor model.safetensors");
}

}  // namespace

const char* file_dtype_name(FileDType dtype) noexcept { return named(dtype).name; }

int file_dtype_bits(FileDType dtype) noexcept { return named(dtype).bits; }

std::optional<DType> to_dtype(FileDType dtype) noexcept { return named(dtype).same; }

std::optional<FileDType> file_dtype(std::string_view name) noexcept {
  for (const NamedDType& known : kDTypes) {
    if (name == known.name) return known.dtype;
  }
  return std::nullopt;
}

index_t SafetensorsTensor::rows() const noexcept {
  index_t n = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
  return n;
}

Safetensors::Safetensors(const std::string& path) : path_(model_in(path)) {
  if (path_.ends_with(".json")) {
    load_set();
  } else {
    load(mappings_.emplace_back(path_).bytes(), path_, nullptr);
  }
  name_tensors();
}

Safetensors Safetensors::parse(std::span<const std::byte> bytes, std::string name) {
  Safetensors file;
  file.path_ = std::move(name);
  file.load(bytes, file.path_, nullptr);
  file.name_tensors();
  return file;
}

void Safetensors::load(std::span<const std::byte> bytes, const std::string& file,
                       const std::vector<std::string>* wanted) {
  const Sections sections = split(bytes, file);
  SafetensorsHeader header = parse_file(sections, file);
  const auto keep = [&](std::string name, HeaderEntry entry) {
    tensors_.emplace(std::move(name), placed(std::move(entry), sections.data, files_.size()));
  };
  if (wanted == nullptr) {
    for (auto& [name, entry] : header.tensors) keep(name, std::move(entry));
  } else {
    for (const std::string& name : *wanted) {
      const auto at = header.tensors.find(name);
      if (at == header.tensors.end()) {
        fail(file, "tensor " + in_quotes(name), "is missing, but the index says that it is here");
      }
      keep(name, std::move(at->second));
    }
  }
  metadata_.merge(header.metadata);
  files_.push_back(file);
}

void Safetensors::load_set() {
  const MappedFile index(path_);
  if (index.bytes().size() > kMaxJsonBytes) {
    fail(path_, "", "an index of " + std::to_string(index.bytes().size()) + " bytes is too long");
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (auto& [tensor, file] : parse_index(text(index.bytes()), path_)) {
    shards[file].push_back(tensor);
  }
  const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  for (const auto& [file, wanted] : shards) {
    const MappedFile& shard = mappings_.emplace_back((folder / file).string());
    load(shard.bytes(), shard.path(), &wanted);
  }
}

void Safetensors::name_tensors() {
  for (auto& [name, tensor] : tensors_) tensor.name = name;
}

const SafetensorsTensor* Safetensors::find(std::string_view name) const noexcept {
  const auto at = tensors_.find(name);
  return at == tensors_.end() ? nullptr : &at->second;
}

const SafetensorsTensor& Safetensors::at(std::string_view name) const {
  const SafetensorsTensor* tensor = find(name);
  if (tensor == nullptr) fail(path_, "tensor " + in_quotes(name), "is missing");
  return *tensor;
}

void Safetensors::read_rows(const SafetensorsTensor& tensor, index_t first_row,
                            TensorView out) const {
  const std::string& file = files_[tensor.file];
  const std::optional<DType> same = to_dtype(tensor.dtype);
  const BlockDecoder decode = same == DType::f32    ? block_decoder(GgmlType::f32)
                              : same == DType::f16  ? block_decoder(GgmlType::f16)
                              : same == DType::bf16 ? block_decoder(GgmlType::bf16)
                                                    : nullptr;
  if (decode == nullptr) {
    throw Unsupported(printable(file) + ": tensor " + in_quotes(tensor.name) + ": dtype " +
                      file_dtype_name(tensor.dtype) + " cannot be converted");
  }
  io::read_rows({.file = file,
                 .name = tensor.name,
                 .data = tensor.bytes.data(),
                 .rows = tensor.rows(),
                 .cols = tensor.cols(),
                 .block_elements = 1,
                 .block_bytes = file_dtype_bits(tensor.dtype) / 8,
                 .decode = decode,
                 .same = same},
                first_row, out);
}

}  // namespace spectx::io
