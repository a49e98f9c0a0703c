// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "spectx/types.hpp"

namespace spectx::io {

/// Element types of a GGUF file, with their numbers in the file. Rows are stored as blocks of
/// `block_elements`.
enum class GgmlType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q8_1 = 9,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  q8_k = 15,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39,
};

struct GgmlTypeInfo {
  GgmlType type;
  const char* name;        // as ggml writes it: "Q4_K"
  index_t block_elements;  // 1: not quantised
  index_t block_bytes;
};

/// Null for a number that is no type.
const GgmlTypeInfo* ggml_type_info(GgmlType type) noexcept;

/// Decodes whole blocks: `blocks` holds out.size() / block_elements of them. Rounds to float as
/// ggml does. Throws Unsupported that names the type, InvalidArgument when the sizes do not agree.
void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> out);

}  // namespace spectx::io
