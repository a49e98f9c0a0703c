// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "gguf_reader.hpp"
#include "shape_size.hpp"

namespace spectx::io {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::uint64_t kMaxNameBytes = 65535;  // the specification's limit for keys
constexpr std::uint32_t kMaxDimensions = 4;
constexpr std::uint32_t kDefaultAlignment = 32;
// The least that an entry takes: its counts are refused before anything is allocated for them.
constexpr std::uint64_t kMinValueBytes = 8 + 4 + 1;           // key length, type, u8
constexpr std::uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;  // name length, rank, dimension, ...

class Parser {
 public:
  Parser(std::span<const std::byte> bytes, std::string_view file)
      : bytes_(bytes), file_(file), reader_(bytes, file) {}

  GgufContents run() {
    read_header();
    for (std::uint64_t i = 0; i < num_values_; ++i) read_value(i);
    alignment_ = read_alignment();
    contents_.tensors.reserve(static_cast<std::size_t>(num_tensors_));
    offsets_.reserve(static_cast<std::size_t>(num_tensors_));
    for (std::uint64_t i = 0; i < num_tensors_; ++i) read_tensor(i);
    place_tensors();
    check_overlaps();
    index_names();
    return std::move(contents_);
  }

 private:
  void read_header() {
    reader_.enter("header");
    const auto magic = reader_.take(kMagic.size(), "magic");
    if (std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0) {
      reader_.refuse("not a GGUF file: it does not start with \"GGUF\"");
    }
    const auto version = reader_.read<std::uint32_t>("version");
    if (version == 0x02000000U || version == 0x03000000U) {
      reader_.refuse("big-endian GGUF files are not supported");
    }
    if (version != 2 && version != 3) {
      reader_.refuse("GGUF version " + std::to_string(version) + " is not supported, 2 and 3 are");
    }
    contents_.version = static_cast<int>(version);
    num_tensors_ = reader_.read<std::uint64_t>("tensor count");
    num_values_ = reader_.read<std::uint64_t>("metadata count");
    if (num_tensors_ > reader_.remaining() / kMinTensorBytes) {
      reader_.refuse("truncated or corrupt: " + std::to_string(num_tensors_) +
                     " tensors do not fit in the file");
    }
    if (num_values_ > reader_.remaining() / kMinValueBytes) {
      reader_.refuse("truncated or corrupt: " + std::to_string(num_values_) +
                     " metadata values do not fit in the file");
    }
  }

  std::string_view read_name(const char* field) {
    const std::string_view name = reader_.string(field);
    if (name.size() > kMaxNameBytes) {
      reader_.refuse(std::string(field) + " of " + std::to_string(name.size()) +
                     " bytes is longer than " + std::to_string(kMaxNameBytes));
    }
    return name;
  }

  void read_value(std::uint64_t number) {
    reader_.enter("metadata value " + std::to_string(number));
    const std::string_view key = read_name("key");
    reader_.enter("key " + in_quotes(key));
    GgufValue value;
    std::uint64_t count = 1;
    value.type = static_cast<GgufType>(reader_.read<std::uint32_t>("type"));
    value.is_array = value.type == GgufType::array;
    if (value.is_array) {
      value.type = static_cast<GgufType>(reader_.read<std::uint32_t>("element type"));
      count = reader_.read<std::uint64_t>("element count");
      if (value.type == GgufType::array) reader_.refuse("arrays of arrays are not supported");
    }
    const std::uint64_t begin = reader_.position();
    skip_elements(value.type, count);
    value.count = static_cast<index_t>(count);  // fits: each took a byte of the file or more
    value.bytes = bytes_.subspan(static_cast<std::size_t>(begin),
                                 static_cast<std::size_t>(reader_.position() - begin));
    if (!contents_.metadata.emplace(key, value).second) reader_.refuse("is there twice");
  }

  void skip_elements(GgufType type, std::uint64_t count) {
    if (type == GgufType::string) {
      // Each string takes its length at least, so this ends with the file whatever the count says.
      for (std::uint64_t i = 0; i < count; ++i) reader_.string("string");
      return;
    }
    const std::uint64_t size = gguf_type_bytes(type);
    if (size == 0) reader_.refuse("unknown " + gguf_type_name(type));
    std::uint64_t bytes = 0;
    if (!multiply(count, size, bytes)) {
      reader_.refuse(std::to_string(count) + " elements do not fit in the file");
    }
    const auto values = reader_.take(bytes, "value");
    if (type != GgufType::boolean) return;
    const bool all_valid =
        std::all_of(values.begin(), values.end(), [](std::byte b) { return b <= std::byte{1}; });
    if (!all_valid) reader_.refuse("a boolean is neither 0 nor 1");
  }

  std::uint32_t read_alignment() {
    const auto at = contents_.metadata.find("general.alignment");
    if (at == contents_.metadata.end()) return kDefaultAlignment;
    reader_.enter("key 'general.alignment'");
    const GgufValue& value = at->second;
    if (value.is_array || value.type != GgufType::u32) reader_.refuse("must be a u32");
    const auto alignment = GgufReader(value.bytes, file_).read<std::uint32_t>("alignment");
    if (!std::has_single_bit(alignment)) {
      reader_.refuse(std::to_string(alignment) + " is not a power of two");
    }
    return alignment;
  }

  void read_tensor(std::uint64_t number) {
    reader_.enter("tensor " + std::to_string(number));
    GgufTensor tensor;
    tensor.name = read_name("name");
    reader_.enter("tensor " + in_quotes(tensor.name));
    const auto rank = reader_.read<std::uint32_t>("number of dimensions");
    if (rank == 0 || rank > kMaxDimensions) {
      reader_.refuse("has " + std::to_string(rank) + " dimensions, 1 to 4 are allowed");
    }
    for (std::uint32_t i = 0; i < rank; ++i) {
      const auto extent = reader_.read<std::uint64_t>("dimension");
      if (extent > kMaxIndex) {
        reader_.refuse("dimension " + std::to_string(extent) + " does not fit in 63 bits");
      }
      tensor.shape.push_back(static_cast<index_t>(extent));
    }
    std::reverse(tensor.shape.begin(), tensor.shape.end());
    tensor.type = static_cast<GgmlType>(reader_.read<std::uint32_t>("type"));
    offsets_.push_back(reader_.read<std::uint64_t>("offset"));
    contents_.tensors.push_back(std::move(tensor));
  }

  std::uint64_t tensor_bytes(const GgufTensor& tensor) const {
    const GgmlTypeInfo* info = ggml_type_info(tensor.type);
    if (info == nullptr) {
      reader_.refuse("unknown type " + std::to_string(static_cast<std::uint32_t>(tensor.type)));
    }
    if (tensor.cols() % info->block_elements != 0) {
      reader_.refuse("rows of " + std::to_string(tensor.cols()) +
                     " elements are no whole blocks of " + info->name + ", " +
                     std::to_string(info->block_elements) + " elements each");
    }
    const ShapeSize size = shape_size(tensor.shape);
    std::uint64_t bytes = 0;
    const bool fits =
        size.fits && multiply(size.elements / static_cast<std::uint64_t>(info->block_elements),
                              static_cast<std::uint64_t>(info->block_bytes), bytes);
    if (!fits || bytes > kMaxIndex) reader_.refuse("its size does not fit in 63 bits");
    return size.is_empty ? 0 : bytes;
  }

  void place_tensors() {
    const std::uint64_t padding = (alignment_ - reader_.position() % alignment_) % alignment_;
    const std::uint64_t data = reader_.position() + padding;
    const std::uint64_t data_bytes = data > bytes_.size() ? 0 : bytes_.size() - data;
    for (std::size_t i = 0; i < offsets_.size(); ++i) {
      GgufTensor& tensor = contents_.tensors[i];
      reader_.enter("tensor " + in_quotes(tensor.name));
      const std::uint64_t bytes = tensor_bytes(tensor);
      if (offsets_[i] % alignment_ != 0) {
        reader_.refuse("offset " + std::to_string(offsets_[i]) + " is not aligned to " +
                       std::to_string(alignment_));
      }
      if (offsets_[i] > data_bytes || bytes > data_bytes - offsets_[i]) {
        reader_.refuse("truncated or corrupt: " + std::to_string(bytes) + " bytes at offset " +
                       std::to_string(offsets_[i]) + " of the data, which has " +
                       std::to_string(data_bytes));
      }
      if (bytes > 0) {
        tensor.bytes = bytes_.subspan(static_cast<std::size_t>(data + offsets_[i]),
                                      static_cast<std::size_t>(bytes));
      }
    }
  }

  void check_overlaps() {
    std::vector<std::size_t> order(contents_.tensors.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto& tensors = contents_.tensors;
    std::erase_if(order, [&](std::size_t i) { return tensors[i].bytes.empty(); });
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return offsets_[a] < offsets_[b]; });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const GgufTensor& before = tensors[order[i - 1]];
      if (offsets_[order[i - 1]] + before.bytes.size() > offsets_[order[i]]) {
        reader_.enter("tensor " + in_quotes(tensors[order[i]].name));
        reader_.refuse("overlaps tensor " + in_quotes(before.name));
      }
    }
  }

  void index_names() {
    const auto& tensors = contents_.tensors;
    auto& order = contents_.by_name;
    order.resize(tensors.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return tensors[a].name < tensors[b].name; });
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (tensors[order[i - 1]].name == tensors[order[i]].name) {
        reader_.enter("tensor " + in_quotes(tensors[order[i]].name));
        reader_.refuse("is there twice");
      }
    }
  }

  std::span<const std::byte> bytes_;
  std::string_view file_;
  GgufReader reader_;
  GgufContents contents_;
  std::vector<std::uint64_t> offsets_;  // of tensors, from the start of the data
  std::uint64_t num_tensors_ = 0;
  std::uint64_t num_values_ = 0;
  std::uint32_t alignment_ = kDefaultAlignment;
};

}  // namespace

std::string gguf_type_name(GgufType type) {
  constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                    "bool", "string", "array", "u64", "i64", "f64"};
  const auto number = static_cast<std::uint32_t>(type);
  return number < std::size(kNames) ? kNames[number] : "type " + std::to_string(number);
}

std::uint64_t gguf_type_bytes(GgufType type) noexcept {
  constexpr std::uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const auto number = static_cast<std::uint32_t>(type);
  return number < std::size(kBytes) ? kBytes[number] : 0;
}

GgufContents parse_gguf(std::span<const std::byte> bytes, std::string_view file) {
  return Parser(bytes, file).run();
}

}  // namespace spectx::io
