// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/dequantize.hpp"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "io_support.hpp"
#include "spectx/half.hpp"

namespace spectx::io {
namespace {

using Block = std::vector<std::byte>;

// `count` bits from bit `at` on, bits counted from the lowest of the first byte.
int bits(const std::byte* block, int at, int count) {
  int value = 0;
  for (int i = 0; i < count; ++i) {
    const int byte = std::to_integer<int>(block[(at + i) / 8]);
    value |= (byte >> ((at + i) % 8) & 1) << i;
  }
  return value;
}

double half_at(const std::byte* block, int byte) {
  const int fraction = bits(block, byte * 8, 10);
  const int exponent = bits(block, byte * 8 + 10, 5);
  const double sign = bits(block, byte * 8 + 15, 1) != 0 ? -1 : 1;
  return sign *
         (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

int signed_byte(const std::byte* block, int byte) {
  const int value = bits(block, byte * 8, 8);
  return value < 128 ? value : value - 256;
}

// The i-th nibble of 32 elements: those of the low halves of 16 bytes, then of the high halves.
int nibble_32(const std::byte* block, int byte, int i) {
  return bits(block, (byte + i % 16) * 8 + i / 16 * 4, 4);
}

struct Pair {
  int scale;
  int min;
};

Pair six_bits(const std::byte* block, int s) {
  const auto field = [&](int first) {
    if (s < 4) return bits(block, (4 + first + s) * 8, 6);
    const int low = bits(block, (12 + s - 4) * 8 + first, 4);
    return low + 16 * bits(block, (4 + first + s - 4) * 8 + 6, 2);
  };
  return {field(0), field(4)};
}

double k4_k5(const std::byte* block, int i, bool has_fifth) {
  const int s = i / 32;
  const int nibbles = has_fifth ? 48 : 16;
  const int low = bits(block, (nibbles + s / 2 * 32 + i % 32) * 8 + s % 2 * 4, 4);
  const int fifth = has_fifth ? bits(block, (16 + i % 32) * 8 + s, 1) : 0;
  const Pair pair = six_bits(block, s);
  return half_at(block, 0) * pair.scale * (low + 16 * fifth) - half_at(block, 2) * pair.min;
}

double q6_k(const std::byte* block, int i) {
  const int part = i / 128;
  const int quarter = i % 128 / 32;
  const int low = bits(block, (part * 64 + quarter % 2 * 32 + i % 32) * 8 + quarter / 2 * 4, 4);
  const int high = bits(block, (128 + part * 32 + i % 32) * 8 + quarter * 2, 2);
  return half_at(block, 208) * signed_byte(block, 192 + i / 16) * (low + 16 * high - 32);
}

// Element i of a block, by the format's definition bit by bit.
double element(GgmlType type, const std::byte* block, int i) {
  switch (type) {
    case GgmlType::f16:
      return half_at(block, 0);
    case GgmlType::q4_0:
      return half_at(block, 0) * (nibble_32(block, 2, i) - 8);
    case GgmlType::q4_1:
      return half_at(block, 0) * nibble_32(block, 4, i) + half_at(block, 2);
    case GgmlType::q5_0:
      return half_at(block, 0) * (nibble_32(block, 6, i) + 16 * bits(block, 16 + i, 1) - 16);
    case GgmlType::q5_1:
      return half_at(block, 0) * (nibble_32(block, 8, i) + 16 * bits(block, 32 + i, 1)) +
             half_at(block, 2);
    case GgmlType::q8_0:
      return half_at(block, 0) * signed_byte(block, 2 + i);
    case GgmlType::q4_k:
      return k4_k5(block, i, false);
    case GgmlType::q5_k:
      return k4_k5(block, i, true);
    case GgmlType::q6_k:
      return q6_k(block, i);
    default:
      FAIL("no definition");
      return 0;
  }
}

// Random blocks. Halves keep exponents from -8 to 7, so that the reference is exact in double and
// both round once.
Block random_blocks(GgmlType type, index_t count, std::mt19937& random) {
  const index_t size = ggml_type_info(type)->block_bytes;
  Block blocks(static_cast<std::size_t>(count * size));
  for (std::byte& b : blocks) b = static_cast<std::byte>(random() & 0xffU);
  const int first_half = type == GgmlType::q6_k ? 208 : 0;
  const bool has_two = type == GgmlType::q4_1 || type == GgmlType::q5_1 || type == GgmlType::q4_k ||
                       type == GgmlType::q5_k;
  for (index_t b = 0; b < count; ++b) {
    for (int at = first_half; at <= first_half + (has_two ? 2 : 0); at += 2) {
      std::byte& upper = blocks[static_cast<std::size_t>(b * size + at + 1)];
      upper = (upper & std::byte{0xbf}) | std::byte{0x20};
    }
  }
  return blocks;
}

TEST_CASE("dequantize equals the formats' definitions bit by bit") {
  const GgmlType type =
      GENERATE(GgmlType::f16, GgmlType::q4_0, GgmlType::q4_1, GgmlType::q5_0, GgmlType::q5_1,
               GgmlType::q8_0, GgmlType::q4_k, GgmlType::q5_k, GgmlType::q6_k);
  const index_t count = GENERATE(0, 1, 7);
  const unsigned seed = 11;
  const GgmlTypeInfo& info = *ggml_type_info(type);
  CAPTURE(info.name, count, seed);
  std::mt19937 random(seed);
  const Block blocks = random_blocks(type, count, random);
  std::vector<float> out(static_cast<std::size_t>(count * info.block_elements));
  dequantize(type, blocks, out);
  for (index_t i = 0; i < count * info.block_elements; ++i) {
    const std::byte* block = blocks.data() + i / info.block_elements * info.block_bytes;
    const double expected = element(type, block, static_cast<int>(i % info.block_elements));
    CAPTURE(i);
    REQUIRE(out[static_cast<std::size_t>(i)] == static_cast<float>(expected));
  }
}

TEST_CASE("dequantize keeps every value of the plain types") {
  const std::vector<float> floats{0.0F, -0.0F, 1e-45F, 3.4e38F,
                                  std::numeric_limits<float>::infinity()};
  std::vector<float> out(floats.size());
  dequantize(GgmlType::f32, std::as_bytes(std::span(floats)), out);
  REQUIRE(out == floats);
  REQUIRE(std::signbit(out[1]));
  const std::vector<std::uint16_t> brains{0x3f80, 0xc0a0, 0x7f80, 0x7fc1, 0x0001};
  dequantize(GgmlType::bf16, std::as_bytes(std::span(brains)), out);
  REQUIRE(out[0] == 1.0F);
  REQUIRE(out[1] == -5.0F);
  REQUIRE(out[2] == std::numeric_limits<float>::infinity());
  REQUIRE(std::isnan(out[3]));
  REQUIRE(out[4] == std::ldexp(1.0F, -133));
}

TEST_CASE("dequantize refuses sizes that do not agree and types that it does not know") {
  const Block blocks(36);
  std::vector<float> out(64);
  const std::span<float> all(out);
  REQUIRE_NOTHROW(dequantize(GgmlType::q4_0, blocks, all));
  REQUIRE_THROWS_AS(dequantize(GgmlType::q4_0, blocks, all.first(32)), InvalidArgument);
  REQUIRE_THROWS_AS(dequantize(GgmlType::q4_0, blocks, all.first(63)), InvalidArgument);
  REQUIRE_THROWS_AS(dequantize(GgmlType::q4_0, std::span(blocks).first(35), all), InvalidArgument);
  const std::string message =
      test::message_of<Unsupported>([&] { dequantize(GgmlType::iq4_nl, blocks, all); });
  REQUIRE(message == "dequantize: type IQ4_NL cannot be decoded");
  REQUIRE_THROWS_AS(dequantize(GgmlType::q2_k, blocks, all), Unsupported);
  REQUIRE_THROWS_AS(dequantize(GgmlType{77}, blocks, all), Unsupported);
  REQUIRE(ggml_type_info(GgmlType{4}) == nullptr);
}

}  // namespace
}  // namespace spectx::io
