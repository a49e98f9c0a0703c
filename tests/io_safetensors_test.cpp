// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/safetensors.hpp"

#include <cmath>
#include <limits>

#include "io_support.hpp"
#include "spectx/half.hpp"

namespace spectx::io {
namespace {

using test::bytes_of;
using test::message_of;
using test::raw;
using test::TemporaryFolder;

std::string safetensors(const std::string& json, const std::string& data) {
  return raw(std::uint64_t{json.size()}) + json + data;
}

// "w", F32, 2 rows of 3 from `first` on, then "s", BF16, one element: 0.5.
std::string small_file(float first = 1) {
  std::string data;
  for (int i = 0; i < 6; ++i) data += raw(first + static_cast<float>(i));
  return safetensors(R"({"__metadata__":{"made by":"a test"},)"
                     R"("s":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},)"
                     R"("w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})",
                     data + raw(from_float<bf16_t>(0.5F)));
}

TEST_CASE("Safetensors gives names, shapes, bytes and metadata") {
  const std::string content = small_file();
  auto first = Safetensors::parse(bytes_of(content), "f");
  const Safetensors file = std::move(first);
  REQUIRE(file.metadata().at("made by") == "a test");
  REQUIRE(file.tensors().size() == 2);
  const SafetensorsTensor& w = file.at("w");
  REQUIRE(w.name == "w");
  REQUIRE(w.dtype == FileDType::f32);
  REQUIRE(w.shape == std::vector<index_t>{2, 3});
  REQUIRE(w.bytes.size() == 24);
  REQUIRE(file.find("w") == &w);
  REQUIRE(file.find("") == nullptr);
  REQUIRE(file.at("s").shape.empty());
  REQUIRE(file.at("s").rows() * file.at("s").cols() == 1);
  REQUIRE(message_of([&] { (void)file.at("v"); }) == "f: tensor 'v': is missing");
}

TEST_CASE("Safetensors::read_rows converts to each row type") {
  const std::string content = small_file();
  const auto file = Safetensors::parse(bytes_of(content), "f");
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> floats(8, kNan);
  file.read_rows(file.at("w"), 0, matrix_view(floats.data(), DType::f32, 2, 3, 4));
  for (const std::size_t i : {0U, 1U, 2U}) {
    REQUIRE(floats[i] == static_cast<float>(i + 1));
    REQUIRE(floats[4 + i] == static_cast<float>(i + 4));
  }
  REQUIRE((std::isnan(floats[3]) && std::isnan(floats[7])));
  std::vector<half_t> halves(3);
  file.read_rows(file.at("w"), 1, vector_view(halves.data(), DType::f16, 3));
  REQUIRE(to_float(halves[2]) == 6);
  float half = 0;
  file.read_rows(file.at("s"), 0, vector_view(&half, DType::f32, 1));
  REQUIRE(half == 0.5F);
  REQUIRE(message_of<InvalidArgument>([&] {
            file.read_rows(file.at("w"), 1, matrix_view(floats.data(), DType::f32, 2, 3));
          }) == "f: tensor 'w': has 2 rows, 2 from 1 were asked for");

  const std::string integers =
      safetensors(R"({"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", raw(index_t{1}));
  const auto other = Safetensors::parse(bytes_of(integers), "g");
  REQUIRE(message_of<Unsupported>([&] {
            other.read_rows(other.at("i"), 0, vector_view(&half, DType::f32, 1));
          }) == "g: tensor 'i': dtype I64 cannot be converted");
}

TEST_CASE("Safetensors knows which types the library has") {
  REQUIRE(to_dtype(FileDType::bf16) == DType::bf16);
  REQUIRE(to_dtype(FileDType::i8) == DType::i8);
  REQUIRE(to_dtype(FileDType::f8_e4m3) == DType::f8_e4m3);
  REQUIRE_FALSE(to_dtype(FileDType::u8));
  REQUIRE(std::string(file_dtype_name(FileDType::f8_e5m2)) == "F8_E5M2");
  REQUIRE(file_dtype_bits(FileDType::f4) == 4);
  for (int i = 0; i <= static_cast<int>(FileDType::u64); ++i) {
    const auto dtype = static_cast<FileDType>(i);
    const auto same = to_dtype(dtype);
    if (same) REQUIRE(dtype_bytes(*same) * 8 == file_dtype_bits(dtype));
  }
}

TEST_CASE("Safetensors refuses every file that ends early") {
  const std::string content = small_file();
  for (std::size_t size = 0; size < content.size(); ++size) {
    CAPTURE(size);
    const std::string cut = content.substr(0, size);
    REQUIRE_THROWS_AS(Safetensors::parse(bytes_of(cut), "cut"), FileError);
  }
}

std::string index_json(const std::string& w_file) {
  return R"({"metadata":{"total_size":50,"x":null},"weight_map":{"w":")" + w_file +
         R"(","s":"b.safetensors"}})";
}

TEST_CASE("Safetensors opens a sharded set by its folder or index") {
  const TemporaryFolder folder;
  const std::string a = folder.write("a.safetensors", small_file(10));
  folder.write("b.safetensors", small_file(20));
  const std::string index =
      folder.write("model.safetensors.index.json", index_json("a.safetensors"));
  for (const std::string& path : {folder.path().string(), index}) {
    CAPTURE(path);
    const Safetensors set(path);
    REQUIRE(set.path() == index);
    REQUIRE(set.files().size() == 2);
    REQUIRE(set.tensors().size() == 2);
    REQUIRE(set.files()[set.at("w").file] == a);
    std::vector<float> row(3);
    set.read_rows(set.at("w"), 0, vector_view(row.data(), DType::f32, 3));
    REQUIRE(row == std::vector<float>{10, 11, 12});
  }
}

TEST_CASE("Safetensors opens the only file of a folder") {
  const TemporaryFolder folder;
  REQUIRE(message_of([&] {
            Safetensors{folder.path().string()};
          }).ends_with("neither model.safetensors.index.json nor model.safetensors"));
  folder.write("model.safetensors", small_file());
  REQUIRE(Safetensors(folder.path().string()).tensors().size() == 2);
}

TEST_CASE("Safetensors refuses an index that lies") {
  const TemporaryFolder folder;
  folder.write("b.safetensors", small_file());
  const auto refusal = [&](const std::string& json) {
    const std::string path = folder.write("model.safetensors.index.json", json);
    return message_of([&] { Safetensors{path}; });
  };
  REQUIRE(refusal(index_json("none.safetensors")).ends_with("No such file or directory"));
  REQUIRE(
      refusal(index_json("../b.safetensors"))
          .ends_with("tensor 'w': '../b.safetensors' is not the name of a file beside the index"));
  REQUIRE(
      refusal(R"({"weight_map":{"v":"b.safetensors"}})")
          .ends_with("b.safetensors: tensor 'v': is missing, but the index says that it is here"));
  REQUIRE(refusal("{}").ends_with("index: weight_map is missing"));
  REQUIRE(refusal("{").ends_with("index: invalid JSON at byte 2"));
  REQUIRE(refusal("[]").ends_with("index: unexpected an array"));
  REQUIRE(refusal(R"({"weight_map":{"w":{}}})").ends_with("tensor 'w': unexpected an object"));
  REQUIRE(refusal(R"({"weight_map":{"w":"b.safetensors","w":"b.safetensors"}})")
              .ends_with("tensor 'w': is there twice"));
}

}  // namespace
}  // namespace spectx::io
