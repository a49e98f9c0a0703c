// SPDX-License-Identifier: Apache-2.0
// Writes the files that generate_program_test.cmake runs spectx-generate on: good ones, bad ones.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "support/tiny_head.hpp"
#include "support/tiny_llama.hpp"

namespace spectx::test {
namespace {

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  file.close();
  if (!file) throw std::runtime_error(path.string() + ": cannot be written");
}

void write_all(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  const TinyLlama model({.has_tied_embeddings = false});
  const std::string bytes = model.gguf();
  write(folder / "model.gguf", bytes);
  write(folder / "cut.gguf", bytes.substr(0, bytes.size() / 2));

  TinyLlama other;
  other.architecture = "mamba";
  write(folder / "other.gguf", other.gguf());

  const std::string head = TinyHead{}.safetensors();
  write(folder / "head.safetensors", head);
  write(folder / "foreign.safetensors",
        TinyHead{.more_metadata = R"(,"target":"deep")"}.safetensors());
  write(folder / "cut.safetensors", head.substr(0, head.size() - 100));
  write(folder / "misfit.safetensors",
        TinyHead{.hidden = 64, .feature_layers = "[1, 9]"}.safetensors());

  // Deep enough that its cache has several groups of layers.
  const TinyLlama deep({.layers = 32,
                        .feed_forward = 32,
                        .query_heads = 2,
                        .dim = 64,
                        .rope_dim = 64,
                        .context = 1200,
                        .has_tied_embeddings = false});
  write(folder / "deep.gguf", deep.gguf());

  std::string text;
  for (int i = 0; text.size() < 1000; ++i) text += "line " + std::to_string(i * i) + "\n";
  text.resize(1000);
  write(folder / "long.txt", text);
  write(folder / "short.txt", text.substr(0, 300));
  write(folder / "bytes.txt", "\xff\xfe and \xc3( are not UTF-8");
  write(folder / "empty.txt", "");
}

}  // namespace
}  // namespace spectx::test

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    spectx::test::write_all(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tiny_files: %s\n", error.what());
    return 1;
  }
  return 0;
}
