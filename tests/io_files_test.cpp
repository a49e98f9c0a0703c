// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include "io_support.hpp"
#include "spectx/io/gguf.hpp"
#include "spectx/io/mapped_file.hpp"
#include "spectx/io/safetensors.hpp"

namespace spectx::io {
namespace {

using test::message_of;

TEST_CASE("MappedFile gives the file's bytes and keeps their address when it moves") {
  const test::TemporaryFolder folder;
  const std::string path = folder.write("file", "content");
  MappedFile file(path);
  const std::byte* address = file.bytes().data();
  MappedFile other(std::move(file));
  MappedFile third;
  third = std::move(other);
  REQUIRE(third.bytes().data() == address);
  REQUIRE(third.path() == path);
  REQUIRE(std::string(reinterpret_cast<const char*>(address), third.bytes().size()) == "content");
  REQUIRE(MappedFile(folder.write("empty", "")).bytes().empty());
}

TEST_CASE("MappedFile refuses what is not a readable regular file, and waits for none") {
  const test::TemporaryFolder folder;
  const std::string none = (folder.path() / "none\n").string();
  const std::string printed = (folder.path() / "none\\n").string();
  REQUIRE(message_of([&] { MappedFile{none}; }) ==
          printed + ": cannot open: No such file or directory");
  REQUIRE(message_of([&] { MappedFile{folder.path().string()}; }) ==
          folder.path().string() + ": not a regular file");
  const std::string pipe = (folder.path() / "pipe").string();
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  REQUIRE(message_of([&] { MappedFile{pipe}; }) == pipe + ": not a regular file");
  const std::string with_nul = folder.write("file", "x") + std::string(1, '\0') + "tail";
  REQUIRE(message_of([&] { MappedFile{with_nul}; }).ends_with("a path cannot hold a NUL"));
}

TEST_CASE("Rows that the Python package gguf wrote and decoded are the same here") {
  const Gguf file(SPECTX_TEST_DATA "/quantized.gguf");
  const std::string name = GENERATE("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
                                    "Q4_K", "Q5_K", "Q6_K");
  CAPTURE(name);
  const GgufTensor& tensor = file.at(name);
  const GgufTensor& expected = file.at(name + ".expected");
  REQUIRE(ggml_type_info(tensor.type)->name == name);
  REQUIRE(tensor.shape == expected.shape);
  const auto rows = [&](const GgufTensor& t) {
    std::vector<float> out(static_cast<std::size_t>(t.rows() * t.cols()));
    file.read_rows(t, 0, matrix_view(out.data(), DType::f32, t.rows(), t.cols()));
    return out;
  };
  REQUIRE(rows(tensor) == rows(expected));
}

TEST_CASE("A head that the Python package safetensors wrote is read") {
  const Safetensors file(SPECTX_HEADS "/smollm2-135m-instruct.safetensors");
  REQUIRE(file.metadata().at("architecture") == "eagle3-qk");
  REQUIRE(file.at("midlayer.self_attn.q_proj.weight").dtype == FileDType::f16);
  REQUIRE(file.at("midlayer.self_attn.k_proj.weight").cols() == 1152);
}

// Broken files of the corpus, and what the message says after the file's name.
struct Refusal {
  const char* file;
  const char* message;
};

TEST_CASE("A broken file's message names the place and the reason") {
  const auto [name, message] = GENERATE(values<Refusal>({
      {"gguf/bad_magic", "header: not a GGUF file: it does not start with \"GGUF\""},
      {"gguf/bad_version_1", "header: GGUF version 1 is not supported, 2 and 3 are"},
      {"gguf/bad_big_endian", "header: big-endian GGUF files are not supported"},
      {"gguf/bad_tensor_count",
       "header: truncated or corrupt: 18446744073709551615 tensors do not fit in the file"},
      {"gguf/bad_string_length",
       "key 'k': truncated: string needs 9223372036854775808 bytes at offset 45, 0 are left"},
      {"gguf/bad_nested_array", "key 'k': arrays of arrays are not supported"},
      {"gguf/bad_boolean", "key 'k': a boolean is neither 0 nor 1"},
      {"gguf/bad_alignment_3", "key 'general.alignment': 3 is not a power of two"},
      {"gguf/bad_product_wraps", "tensor 'a': its size does not fit in 63 bits"},
      {"gguf/bad_hidden_overflow", "tensor 'a': its size does not fit in 63 bits"},
      {"gguf/bad_partial_block",
       "tensor 'a': rows of 33 elements are no whole blocks of Q4_0, 32 elements each"},
      {"gguf/bad_tensor_type", "tensor 'a': unknown type 4"},
      {"gguf/bad_tensor_cut",
       "tensor 'a': truncated or corrupt: 32 bytes at offset 0 of the data, which has 31"},
      {"gguf/bad_overlap", "tensor 'b': overlaps tensor 'a'"},
      {"gguf/bad_tensor_twice", "tensor 'a': is there twice"},
      {"safetensors/bad_deep_shape", "tensor 'a': unexpected an array"},
      {"safetensors/bad_name_twice", "tensor 'a': is there twice"},
      {"safetensors/bad_shape_negative", "tensor 'a': unexpected a negative number"},
      {"safetensors/bad_shape_fraction",
       "tensor 'a': unexpected a number that is no integer of 64 bits"},
      {"safetensors/bad_bits_wrap", "tensor 'a': its size does not fit in 64 bits"},
      {"safetensors/bad_offsets_swapped", "tensor 'a': data_offsets end before they begin: 8, 0"},
      {"safetensors/bad_data_cut",
       "tensor 'a': truncated or corrupt: ends at byte 8 of the data, which has 7"},
      {"safetensors/bad_hole", "tensor 'b': a hole of 2 bytes precedes it"},
      {"safetensors/bad_dtype_unknown", "tensor 'a': unknown dtype 'F128'"},
  }));
  const std::string path = std::string(SPECTX_CORPUS "/") + name;
  CAPTURE(path);
  const bool is_gguf = std::string(name).starts_with("gguf");
  const std::string what = message_of([&] {
    if (is_gguf) {
      Gguf{path};
    } else {
      Safetensors{path};
    }
  });
  REQUIRE(what == path + ": " + message);
}

}  // namespace
}  // namespace spectx::io
