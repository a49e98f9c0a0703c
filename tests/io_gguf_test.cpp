// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/gguf.hpp"

#include <cmath>
#include <limits>

#include "io_support.hpp"
#include "spectx/half.hpp"

namespace spectx::io {
namespace {

using test::bytes_of;
using test::gguf_text;
using test::message_of;
using test::raw;

std::string header(std::uint64_t tensors, std::uint64_t values) {
  return "GGUF" + raw(std::uint32_t{3}) + raw(tensors) + raw(values);
}

template <class T>
std::string entry(const std::string& key, GgufType type, T value) {
  return gguf_text(key) + raw(type) + raw(value);
}

std::string array_entry(const std::string& key, GgufType type, std::uint64_t count,
                        const std::string& elements) {
  return gguf_text(key) + raw(GgufType::array) + raw(type) + raw(count) + elements;
}

TEST_CASE("Gguf::get converts what fits and refuses the rest by name") {
  const std::string file =
      header(0, 9) + entry("u8", GgufType::u8, std::uint8_t{200}) +
      entry("i16", GgufType::i16, std::int16_t{-3}) +
      entry("u64", GgufType::u64, std::uint64_t{1} << 40) + entry("f32", GgufType::f32, 1.5F) +
      entry("f64", GgufType::f64, 1e300) + entry("bool", GgufType::boolean, true) +
      gguf_text("text") + raw(GgufType::string) + gguf_text("a\nb") +
      array_entry("ints", GgufType::i8, 3, "\1\xff\3") +
      array_entry("texts", GgufType::string, 2, gguf_text("x") + gguf_text(""));
  const auto gguf = Gguf::parse(bytes_of(file), "f.gguf");
  REQUIRE(gguf.metadata().size() == 9);
  REQUIRE(gguf.get<std::int32_t>("u8") == 200);
  REQUIRE(gguf.get<index_t>("i16") == -3);
  REQUIRE(gguf.get<std::uint64_t>("u64") == std::uint64_t{1} << 40);
  REQUIRE(gguf.get<double>("f32") == 1.5);
  REQUIRE(gguf.get<double>("f64") == 1e300);
  REQUIRE(gguf.get<bool>("bool"));
  REQUIRE(gguf.get<std::string>("text") == "a\nb");
  REQUIRE(gguf.get<std::vector<index_t>>("ints") == std::vector<index_t>{1, -1, 3});
  REQUIRE(gguf.get<std::vector<std::string_view>>("texts") ==
          std::vector<std::string_view>{"x", ""});
  REQUIRE(gguf.get_or<index_t>("none", 7) == 7);
  REQUIRE(gguf.get_or<index_t>("u8", 7) == 200);
  REQUIRE(gguf.has("u8"));
  REQUIRE_FALSE(gguf.has("u"));

  const auto refusal = [&]<class T>(T, const char* key) {
    return message_of([&] { (void)gguf.get<T>(key); });
  };
  REQUIRE(refusal(index_t{}, "none\x1b") == "f.gguf: key 'none\\x1b': is missing");
  REQUIRE(refusal(std::uint32_t{}, "i16") ==
          "f.gguf: key 'i16': -3 does not fit in 32 unsigned bits");
  REQUIRE(refusal(std::int32_t{}, "u64") ==
          "f.gguf: key 'u64': 1099511627776 does not fit in 32 signed bits");
  REQUIRE(refusal(float{}, "f64").starts_with("f.gguf: key 'f64': "));
  REQUIRE(refusal(float{}, "u8") == "f.gguf: key 'u8': holds u8, not a floating-point number");
  REQUIRE(refusal(bool{}, "u8") == "f.gguf: key 'u8': holds u8, not a bool");
  REQUIRE(refusal(index_t{}, "text") == "f.gguf: key 'text': holds string, not an integer");
  REQUIRE(refusal(std::string{}, "bool") == "f.gguf: key 'bool': holds bool, not a string");
  REQUIRE(refusal(index_t{}, "ints") == "f.gguf: key 'ints': holds an array, not one value");
  REQUIRE(refusal(std::vector<index_t>{}, "u8") ==
          "f.gguf: key 'u8': holds one value, not an array");
  REQUIRE(refusal(std::vector<std::uint32_t>{}, "ints") ==
          "f.gguf: key 'ints': -1 does not fit in 32 unsigned bits");
}

// One F16 tensor "w" of 3 rows of 2: 1, 2, ... 6.
std::string file_with_tensor() {
  std::string file = header(1, 0) + gguf_text("w") + raw(std::uint32_t{2}) + raw(std::uint64_t{2}) +
                     raw(std::uint64_t{3}) + raw(GgmlType::f16) + raw(std::uint64_t{0});
  file.resize((file.size() + 31) / 32 * 32);
  for (int i = 1; i <= 6; ++i) file += raw(from_float<half_t>(static_cast<float>(i)));
  return file;
}

TEST_CASE("Gguf finds tensors by name, with rows first in their shape") {
  const std::string file = file_with_tensor();
  auto first = Gguf::parse(bytes_of(file), "f.gguf");
  const Gguf gguf = std::move(first);
  const GgufTensor& w = gguf.at("w");
  REQUIRE(gguf.find("w") == &w);
  REQUIRE(gguf.find("v") == nullptr);
  REQUIRE(w.shape == std::vector<index_t>{3, 2});
  REQUIRE(w.rows() == 3);
  REQUIRE(w.cols() == 2);
  REQUIRE(w.bytes.size() == 12);
  REQUIRE(gguf.version() == 3);
  REQUIRE(message_of([&] { (void)gguf.at("x"); }) == "f.gguf: tensor 'x': is missing");
}

TEST_CASE("Gguf::read_rows writes the rows asked for and nothing else") {
  const std::string file = file_with_tensor();
  const auto gguf = Gguf::parse(bytes_of(file), "f.gguf");
  const GgufTensor& w = gguf.at("w");
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> floats(9, kNan);
  gguf.read_rows(w, 1, matrix_view(floats.data(), DType::f32, 2, 2, 4));
  REQUIRE(floats[0] == 3);
  REQUIRE(floats[1] == 4);
  REQUIRE(floats[4] == 5);
  REQUIRE(floats[5] == 6);
  for (const std::size_t untouched : {2U, 3U, 6U, 7U, 8U}) REQUIRE(std::isnan(floats[untouched]));

  std::vector<half_t> halves(2);
  gguf.read_rows(w, 2, vector_view(halves.data(), DType::f16, 2));
  REQUIRE(to_float(halves[1]) == 6);
  std::vector<bf16_t> brains(6);
  gguf.read_rows(w, 0, matrix_view(brains.data(), DType::bf16, 3, 2));
  for (int i = 0; i < 6; ++i) {
    REQUIRE(to_float(brains[static_cast<std::size_t>(i)]) == static_cast<float>(i + 1));
  }
  REQUIRE_NOTHROW(gguf.read_rows(w, 3, matrix_view(nullptr, DType::f32, 0, 2)));
}

TEST_CASE("Gguf::read_rows refuses rows that do not fit") {
  const std::string file = file_with_tensor();
  const auto gguf = Gguf::parse(bytes_of(file), "f.gguf");
  const GgufTensor& w = gguf.at("w");
  std::vector<float> out(8);
  const auto refusal = [&](index_t first, TensorView view) {
    return message_of<InvalidArgument>([&] { gguf.read_rows(w, first, view); });
  };
  REQUIRE(refusal(2, matrix_view(out.data(), DType::f32, 2, 2)) ==
          "f.gguf: tensor 'w': has 3 rows, 2 from 2 were asked for");
  REQUIRE(refusal(-1, vector_view(out.data(), DType::f32, 2)).ends_with("were asked for"));
  REQUIRE(refusal(std::numeric_limits<index_t>::max(), vector_view(out.data(), DType::f32, 2))
              .ends_with("were asked for"));
  REQUIRE(refusal(0, matrix_view(out.data(), DType::f32, 2, 3)) ==
          "f.gguf: tensor 'w': rows have 2 columns, 3 were asked for");
  REQUIRE(refusal(0, vector_view(out.data(), DType::i32, 2)) ==
          "f.gguf: tensor 'w': cannot be read as i32");
  REQUIRE(refusal(0, vector_view(nullptr, DType::f32, 2)).ends_with("nowhere to read it to"));
}

TEST_CASE("Gguf refuses every file that ends early") {
  const std::string file = file_with_tensor();
  for (std::size_t size = 0; size < file.size(); ++size) {
    CAPTURE(size);
    const std::string cut = file.substr(0, size);
    REQUIRE_THROWS_AS(Gguf::parse(bytes_of(cut), "cut"), FileError);
  }
}

}  // namespace
}  // namespace spectx::io
