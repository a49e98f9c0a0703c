// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "gguf_writer.hpp"

namespace spectx::test {

/// A GGUF file of two layers whose only tensor is embeddings of 16 tokens, f32.
inline std::string tiny_gguf(const std::string& family) {
  GgufWriter meta;
  meta.meta("general.architecture", family);
  meta.meta(family + ".block_count", std::int64_t{2});
  meta.meta(family + ".attention.head_count", std::int64_t{4});
  meta.meta(family + ".attention.head_count_kv", std::int64_t{2});
  meta.meta(family + ".embedding_length", std::int64_t{64});
  meta.meta(family + ".context_length", std::int64_t{512});
  GgufWriter file;
  file.raw("GGUF", 4);
  file.number(std::uint32_t{3});
  file.number(std::uint64_t{1});
  file.number(meta.keys());
  file.raw(meta.bytes().data(), meta.bytes().size());
  file.text("token_embd.weight");
  file.number(std::uint32_t{2});
  file.number(std::uint64_t{64});
  file.number(std::uint64_t{16});
  file.number(std::uint32_t{0});
  file.number(std::uint64_t{0});
  file.pad();
  return file.bytes() + std::string(64 * 16 * 4, '\0');
}

}  // namespace spectx::test
