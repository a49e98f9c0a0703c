// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/dequantize.hpp"

#include <cstring>
#include <string>

#include "block_decoders.hpp"
#include "spectx/error.hpp"
#include "spectx/half.hpp"

namespace spectx::io {
namespace {

template <class T>
T load(const std::byte* at) noexcept {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

float load_half(const std::byte* at) noexcept { return to_float(load<half_t>(at)); }

int low_nibble(std::byte b) noexcept { return std::to_integer<int>(b & std::byte{15}); }
int high_nibble(std::byte b) noexcept { return std::to_integer<int>(b >> 4); }

template <class T>
void decode_plain(const std::byte* blocks, index_t num_blocks, float* out) {
  for (index_t i = 0; i < num_blocks; ++i) {
    out[i] = to_float(load<T>(blocks + i * static_cast<index_t>(sizeof(T))));
  }
}

// The 32-element blocks: half scale, then half offset (kHasOffset), then 32 fifth bits
// (kHasFifthBit), then 16 bytes: element j is the low nibble of byte j, element j + 16 the high.
// x = scale * (q - midpoint), or scale * q + offset.
template <bool kHasOffset, bool kHasFifthBit>
void decode_nibbles(const std::byte* blocks, index_t num_blocks, float* out) {
  constexpr int kFifthAt = kHasOffset ? 4 : 2;
  constexpr int kNibblesAt = kFifthAt + (kHasFifthBit ? 4 : 0);
  constexpr int kMidpoint = kHasOffset ? 0 : kHasFifthBit ? 16 : 8;
  for (index_t b = 0; b < num_blocks; ++b, blocks += kNibblesAt + 16, out += 32) {
    const float scale = load_half(blocks);
    const float offset = kHasOffset ? load_half(blocks + 2) : 0.0F;
    const std::uint32_t fifth = kHasFifthBit ? load<std::uint32_t>(blocks + kFifthAt) : 0;
    const std::byte* nibbles = blocks + kNibblesAt;
    for (int j = 0; j < 16; ++j) {
      const int fifth_low = static_cast<int>((fifth >> j) << 4 & 16U);
      const int fifth_high = static_cast<int>(fifth >> (j + 16) << 4 & 16U);
      const int low = (low_nibble(nibbles[j]) | fifth_low) - kMidpoint;
      const int high = (high_nibble(nibbles[j]) | fifth_high) - kMidpoint;
      out[j] =
          kHasOffset ? static_cast<float>(low) * scale + offset : static_cast<float>(low) * scale;
      out[j + 16] =
          kHasOffset ? static_cast<float>(high) * scale + offset : static_cast<float>(high) * scale;
    }
  }
}

// 32 elements: half scale, 32 signed bytes.
void decode_q8_0(const std::byte* blocks, index_t num_blocks, float* out) {
  for (index_t b = 0; b < num_blocks; ++b, blocks += 34, out += 32) {
    const float scale = load_half(blocks);
    for (int j = 0; j < 32; ++j) {
      out[j] = static_cast<float>(static_cast<std::int8_t>(blocks[2 + j])) * scale;
    }
  }
}

struct ScaleAndMin {
  int scale;
  int min;
};

// Eight scales and eight minima of 6 bits in 12 bytes: of the first four, the low 6 bits of bytes
// 0-3 and 4-7; of the last four, the nibbles of bytes 8-11 below the top 2 bits of bytes 0-3, 4-7.
ScaleAndMin packed_scale(const std::byte* packed, int i) noexcept {
  const auto at = [&](int k) { return std::to_integer<int>(packed[k]); };
  if (i < 4) return {at(i) & 63, at(i + 4) & 63};
  return {(at(i + 4) & 15) | (at(i - 4) >> 6 << 4), (at(i + 4) >> 4) | (at(i) >> 6 << 4)};
}

// 256 elements: half scale of scales, half scale of minima, 12 bytes of packed_scale, 32 bytes of
// fifth bits (kHasFifthBit), 128 bytes of nibbles. Sub-blocks 2i and 2i + 1 of 32 elements are the
// low and high nibbles of the i-th 32 bytes; bit s of fifth byte j belongs to element j of
// sub-block s. x = d * scale * q - dmin * min.
template <bool kHasFifthBit>
void decode_k4_k5(const std::byte* blocks, index_t num_blocks, float* out) {
  constexpr int kFifthAt = 16;
  constexpr int kNibblesAt = kFifthAt + (kHasFifthBit ? 32 : 0);
  for (index_t b = 0; b < num_blocks; ++b, blocks += kNibblesAt + 128) {
    const float d = load_half(blocks);
    const float dmin = load_half(blocks + 2);
    for (int s = 0; s < 8; ++s, out += 32) {
      const ScaleAndMin packed = packed_scale(blocks + 4, s);
      const float scale = d * static_cast<float>(packed.scale);
      const float min = dmin * static_cast<float>(packed.min);
      const std::byte* nibbles = blocks + kNibblesAt + s / 2 * 32;
      for (int j = 0; j < 32; ++j) {
        const int nibble = s % 2 == 0 ? low_nibble(nibbles[j]) : high_nibble(nibbles[j]);
        const int fifth =
            kHasFifthBit ? (std::to_integer<int>(blocks[kFifthAt + j]) >> s & 1) << 4 : 0;
        out[j] = scale * static_cast<float>(nibble | fifth) - min;
      }
    }
  }
}

// 256 elements: 128 bytes of nibbles, 64 bytes of upper bit pairs, 16 signed scales, half scale of
// scales. Each half of 128 elements is four quarters of 32: quarter t has the nibbles of bytes
// 32 (t % 2) + j, low for t < 2, and bits 2t of pair byte j. x = d * scale * (q - 32).
void decode_q6_k(const std::byte* blocks, index_t num_blocks, float* out) {
  for (index_t b = 0; b < num_blocks; ++b, blocks += 210) {
    const float d = load_half(blocks + 208);
    for (int t = 0; t < 8; ++t, out += 32) {
      const int half = t / 4;
      const int quarter = t % 4;
      const std::byte* nibbles = blocks + half * 64 + quarter % 2 * 32;
      const std::byte* pairs = blocks + 128 + half * 32;
      const std::byte* scales = blocks + 192 + t * 2;
      for (int j = 0; j < 32; ++j) {
        const int nibble = quarter < 2 ? low_nibble(nibbles[j]) : high_nibble(nibbles[j]);
        const int upper = (std::to_integer<int>(pairs[j]) >> (2 * quarter) & 3) << 4;
        const float scale = d * static_cast<float>(static_cast<std::int8_t>(scales[j / 16]));
        out[j] = scale * static_cast<float>((nibble | upper) - 32);
      }
    }
  }
}

}  // namespace

const GgmlTypeInfo* ggml_type_info(GgmlType type) noexcept {
  static constexpr GgmlTypeInfo kTypes[] = {
      {GgmlType::f32, "F32", 1, 4},
      {GgmlType::f16, "F16", 1, 2},
      {GgmlType::q4_0, "Q4_0", 32, 18},
      {GgmlType::q4_1, "Q4_1", 32, 20},
      {GgmlType::q5_0, "Q5_0", 32, 22},
      {GgmlType::q5_1, "Q5_1", 32, 24},
      {GgmlType::q8_0, "Q8_0", 32, 34},
      {GgmlType::q8_1, "Q8_1", 32, 36},
      {GgmlType::q2_k, "Q2_K", 256, 84},
      {GgmlType::q3_k, "Q3_K", 256, 110},
      {GgmlType::q4_k, "Q4_K", 256, 144},
      {GgmlType::q5_k, "Q5_K", 256, 176},
      {GgmlType::q6_k, "Q6_K", 256, 210},
      {GgmlType::q8_k, "Q8_K", 256, 292},
      {GgmlType::iq2_xxs, "IQ2_XXS", 256, 66},
      {GgmlType::iq2_xs, "IQ2_XS", 256, 74},
      {GgmlType::iq3_xxs, "IQ3_XXS", 256, 98},
      {GgmlType::iq1_s, "IQ1_S", 256, 50},
      {GgmlType::iq4_nl, "IQ4_NL", 32, 18},
      {GgmlType::iq3_s, "IQ3_S", 256, 110},
      {GgmlType::iq2_s, "IQ2_S", 256, 82},
      {GgmlType::iq4_xs, "IQ4_XS", 256, 136},
      {GgmlType::i8, "I8", 1, 1},
      {GgmlType::i16, "I16", 1, 2},
      {GgmlType::i32, "I32", 1, 4},
      {GgmlType::i64, "I64", 1, 8},
      {GgmlType::f64, "F64", 1, 8},
      {GgmlType::iq1_m, "IQ1_M", 256, 56},
      {GgmlType::bf16, "BF16", 1, 2},
      {GgmlType::tq1_0, "TQ1_0", 256, 54},
      {GgmlType::tq2_0, "TQ2_0", 256, 66},
      {GgmlType::mxfp4, "MXFP4", 32, 17},
  };
  for (const GgmlTypeInfo& info : kTypes) {
    if (info.type == type) return &info;
  }
  return nullptr;
}

BlockDecoder block_decoder(GgmlType type) noexcept {
  switch (type) {
    case GgmlType::f32:
      return decode_plain<float>;
    case GgmlType::f16:
      return decode_plain<half_t>;
    case GgmlType::bf16:
      return decode_plain<bf16_t>;
    case GgmlType::q4_0:
      return decode_nibbles<false, false>;
    case GgmlType::q4_1:
      return decode_nibbles<true, false>;
    case GgmlType::q5_0:
      return decode_nibbles<false, true>;
    case GgmlType::q5_1:
      return decode_nibbles<true, true>;
    case GgmlType::q8_0:
      return decode_q8_0;
    case GgmlType::q4_k:
      return decode_k4_k5<false>;
    case GgmlType::q5_k:
      return decode_k4_k5<true>;
    case GgmlType::q6_k:
      return decode_q6_k;
    default:
      return nullptr;
  }
}

void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> out) {
  const GgmlTypeInfo* info = ggml_type_info(type);
  const BlockDecoder decode = block_decoder(type);
  if (decode == nullptr) {
    throw Unsupported("dequantize: type " +
                      (info != nullptr ? std::string(info->name)
                                       : std::to_string(static_cast<std::uint32_t>(type))) +
                      " cannot be decoded");
  }
  const auto elements = static_cast<index_t>(out.size());
  const auto bytes = static_cast<index_t>(blocks.size());
  expects(elements % info->block_elements == 0, "dequantize: out must hold whole blocks");
  expects(bytes % info->block_bytes == 0 &&
              bytes / info->block_bytes == elements / info->block_elements,
          "dequantize: blocks and out must hold the same number of blocks");
  decode(blocks.data(), elements / info->block_elements, out.data());
}

}  // namespace spectx::io
