// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace spectx {

using index_t = std::int64_t;

enum class DType : std::uint8_t { f32, f16, bf16, f8_e4m3, i8, i32 };

/// Bytes of one element.
constexpr index_t dtype_bytes(DType dtype) noexcept {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::f8_e4m3:
    case DType::i8:
      return 1;
  }
  return 0;
}

constexpr const char* dtype_name(DType dtype) noexcept {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
    case DType::f8_e4m3:
      return "f8_e4m3";
    case DType::i8:
      return "i8";
    case DType::i32:
      return "i32";
  }
  return "unknown";
}

/// `lender`: pages on the device that a host engine lends.
enum class Tier : std::uint8_t { device, host, lender };

constexpr const char* tier_name(Tier tier) noexcept {
  switch (tier) {
    case Tier::device:
      return "device";
    case Tier::host:
      return "host";
    case Tier::lender:
      return "lent";
  }
  return "unknown";
}

/// Row of every per-request table (page table, slot map, head keys). Minted by KVPool::open, reused
/// after close.
struct RequestId {
  std::int32_t value = -1;
  friend bool operator==(RequestId, RequestId) = default;
};

/// A selection's count: every cached token up to the row's own; ids are not read, rank == id.
inline constexpr std::int32_t kAllTokens = -1;

}  // namespace spectx
