// SPDX-License-Identifier: Apache-2.0
// Somebody else's program that reads a safetensors file.
#include <cstdio>
#include <cstring>
#include <string>

#include "spectx/io/safetensors.hpp"

int main() {
  const std::string header = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const std::uint64_t length = header.size();
  const float values[2] = {1.5F, -2.0F};
  std::string file(8 + header.size() + sizeof values, '\0');
  std::memcpy(file.data(), &length, 8);
  std::memcpy(file.data() + 8, header.data(), header.size());
  std::memcpy(file.data() + 8 + header.size(), values, sizeof values);

  const auto tensors =
      spectx::io::Safetensors::parse(std::as_bytes(std::span(file)), "from memory");
  float read[2] = {};
  tensors.read_rows(tensors.at("x"), 0, spectx::vector_view(read, spectx::DType::f32, 2));
  std::printf("x = %g, %g\n", static_cast<double>(read[0]), static_cast<double>(read[1]));
  return read[0] == values[0] && read[1] == values[1] ? 0 : 1;
}
