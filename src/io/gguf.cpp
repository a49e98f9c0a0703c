// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/gguf.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "gguf_reader.hpp"
#include "read_rows.hpp"

namespace spectx::io {
namespace {

template <class T>
struct ElementOf {
  using type = T;
};
template <class T>
struct ElementOf<std::vector<T>> {
  using type = T;
};

template <class T>
constexpr const char* kWanted = std::is_same_v<T, bool>       ? "a bool"
                                : std::is_integral_v<T>       ? "an integer"
                                : std::is_floating_point_v<T> ? "a floating-point number"
                                                              : "a string";

template <class T, class Stored>
T narrow(Stored value, const GgufReader& reader) {
  bool fits = true;
  if constexpr (std::is_integral_v<T>) {
    fits = std::in_range<T>(value);
  } else if constexpr (sizeof(Stored) > sizeof(T)) {
    fits = !std::isfinite(value) || std::abs(value) <= Stored{std::numeric_limits<T>::max()};
  }
  if (!fits) {
    reader.refuse(std::to_string(value) + " does not fit in " + std::to_string(8 * sizeof(T)) +
                  (std::is_signed_v<T> ? " signed bits" : " unsigned bits"));
  }
  return static_cast<T>(value);
}

// The next element of `type` as a T, by what T can hold: no integer becomes a float or bool.
template <class T>
T read_element(GgufType type, GgufReader& reader) {
  const auto read = [&]<class Stored>(Stored) {
    return narrow<T>(reader.read<Stored>("element"), reader);
  };
  if constexpr (std::is_same_v<T, bool>) {
    if (type == GgufType::boolean) return reader.read<std::uint8_t>("element") != 0;
  } else if constexpr (std::is_integral_v<T>) {
    switch (type) {
      case GgufType::u8:
        return read(std::uint8_t{});
      case GgufType::i8:
        return read(std::int8_t{});
      case GgufType::u16:
        return read(std::uint16_t{});
      case GgufType::i16:
        return read(std::int16_t{});
      case GgufType::u32:
        return read(std::uint32_t{});
      case GgufType::i32:
        return read(std::int32_t{});
      case GgufType::u64:
        return read(std::uint64_t{});
      case GgufType::i64:
        return read(std::int64_t{});
      default:
        break;
    }
  } else if constexpr (std::is_floating_point_v<T>) {
    if (type == GgufType::f32) return read(float{});
    if (type == GgufType::f64) return read(double{});
  } else {
    if (type == GgufType::string) return T(reader.string("element"));
  }
  reader.refuse("holds " + gguf_type_name(type) + ", not " + kWanted<T>);
}

}  // namespace

index_t GgufTensor::rows() const noexcept {
  index_t n = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
  return n;
}

Gguf::Gguf(const std::string& path) : file_(path), path_(path) { load(file_.bytes()); }

Gguf Gguf::parse(std::span<const std::byte> bytes, std::string name) {
  Gguf gguf;
  gguf.path_ = std::move(name);
  gguf.load(bytes);
  return gguf;
}

void Gguf::load(std::span<const std::byte> bytes) {
  GgufContents contents = parse_gguf(bytes, path_);
  version_ = contents.version;
  metadata_ = std::move(contents.metadata);
  tensors_ = std::move(contents.tensors);
  by_name_ = std::move(contents.by_name);
}

template <class T>
T Gguf::get(std::string_view key) const {
  using Element = typename ElementOf<T>::type;
  constexpr bool kIsArray = !std::is_same_v<T, Element>;
  const auto at = metadata_.find(key);
  if (at == metadata_.end()) fail(path_, "key " + in_quotes(key), "is missing");
  const GgufValue& value = at->second;
  GgufReader reader(value.bytes, path_);
  reader.enter("key " + in_quotes(key));
  if (value.is_array != kIsArray) {
    reader.refuse(kIsArray ? "holds one value, not an array" : "holds an array, not one value");
  }
  if constexpr (kIsArray) {
    T elements;
    elements.reserve(static_cast<std::size_t>(value.count));
    for (index_t i = 0; i < value.count; ++i) {
      elements.push_back(read_element<Element>(value.type, reader));
    }
    return elements;
  } else {
    return read_element<T>(value.type, reader);
  }
}

template bool Gguf::get(std::string_view) const;
template std::int32_t Gguf::get(std::string_view) const;
template std::uint32_t Gguf::get(std::string_view) const;
template std::int64_t Gguf::get(std::string_view) const;
template std::uint64_t Gguf::get(std::string_view) const;
template float Gguf::get(std::string_view) const;
template double Gguf::get(std::string_view) const;
template std::string Gguf::get(std::string_view) const;
template std::string_view Gguf::get(std::string_view) const;
template std::vector<bool> Gguf::get(std::string_view) const;
template std::vector<std::int32_t> Gguf::get(std::string_view) const;
template std::vector<std::uint32_t> Gguf::get(std::string_view) const;
template std::vector<std::int64_t> Gguf::get(std::string_view) const;
template std::vector<std::uint64_t> Gguf::get(std::string_view) const;
template std::vector<float> Gguf::get(std::string_view) const;
template std::vector<double> Gguf::get(std::string_view) const;
template std::vector<std::string> Gguf::get(std::string_view) const;
template std::vector<std::string_view> Gguf::get(std::string_view) const;

const GgufTensor* Gguf::find(std::string_view name) const noexcept {
  const auto at =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](std::size_t i, std::string_view n) { return tensors_[i].name < n; });
  return at != by_name_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
}

const GgufTensor& Gguf::at(std::string_view name) const {
  const GgufTensor* tensor = find(name);
  if (tensor == nullptr) fail(path_, "tensor " + in_quotes(name), "is missing");
  return *tensor;
}

void Gguf::read_rows(const GgufTensor& tensor, index_t first_row, TensorView out) const {
  const GgmlTypeInfo& info = *ggml_type_info(tensor.type);  // parsing refused what has none
  const BlockDecoder decode = block_decoder(tensor.type);
  if (decode == nullptr) {
    throw Unsupported(printable(path_) + ": tensor " + in_quotes(tensor.name) + ": type " +
                      info.name + " cannot be decoded");
  }
  std::optional<DType> same;
  if (tensor.type == GgmlType::f32) same = DType::f32;
  if (tensor.type == GgmlType::f16) same = DType::f16;
  if (tensor.type == GgmlType::bf16) same = DType::bf16;
  io::read_rows({.file = path_,
                 .name = tensor.name,
                 .data = tensor.bytes.data(),
                 .rows = tensor.rows(),
                 .cols = tensor.cols(),
                 .block_elements = info.block_elements,
                 .block_bytes = info.block_bytes,
                 .decode = decode,
                 .same = same},
                first_row, out);
}

}  // namespace spectx::io
